"""The fault harness: a real platform, a publisher with a ledger, a nemesis, and an oracle that compares.

A cycle publishes, injects faults at random moments, heals them, waits until the queue has drained, and reconciles
the ledger with the database. `python -m tests.acceptance.chaos --cycles N --seed S` runs many; the short form is
`tests/acceptance/test_chaos_short.py`. Read `runner.py` first.
"""
