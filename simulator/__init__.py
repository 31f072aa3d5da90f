"""A simulated fleet that proves what arrived.

`fleet` steps vehicles and meters minute by minute (`physics`), `faults` turns their readings into what real devices
send, lanes (`mqtt`, `http`) deliver it, and `ledger` keeps on disk what was sent and what was acknowledged.
`verify` then compares the ledger with the database. `replay` sends recordings through the same lanes.
"""
