"""The fault harness: a real platform, a publisher that keeps the simulator's ledger, and a nemesis that breaks things.

A cycle publishes, injects faults at random moments, heals them, waits until the queue has drained, and lets the
simulator's `verify` compare the ledger with the database. `python -m tests.acceptance.chaos --cycles N --seed S` runs
many; the short form is `tests/acceptance/test_chaos_short.py`. Read `runner.py` first.
"""
