"""The attack suite: what one hostile device, key or address can do to the others, on the real stack.

Each attack runs for some seconds in a process of its own. Beside it a victim sends readings over MQTT and HTTP and
looks for each of them in the database. Memory and disk are measured meanwhile, and all of it is compared with the bars
in `outcome.py`. `python -m tests.acceptance.attacks` prints the table; `tests/acceptance/test_attacks_short.py` is the
same with less time for each. Read `runner.py` first.
"""
