"""The whole platform on one machine, from embedded servers: PostgreSQL from its wheel, the system's Mosquitto.

Used by `make up`, the tests and the benchmarks. Every process that is started here ends with the process that started
it, even if that one is killed.
"""
