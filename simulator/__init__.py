"""A simulated fleet with a ledger that proves which readings were stored.

`fleet` steps vehicles and meters minute by minute (`physics`), `faults` adds the errors of real devices, lanes (`mqtt`,
`http`) send the messages, and `ledger` records on disk which messages were sent and acknowledged. `verify` then
compares the ledger with the database. `replay` sends recordings through the same lanes.
"""
