"""The whole platform on one machine, from embedded parts: PostgreSQL from its wheel, the system's Mosquitto.

Used by `make up`, the tests and the benchmarks. Whatever is started here dies with the process that started it,
even when that one is killed.
"""
