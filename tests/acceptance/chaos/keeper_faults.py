"""What happens to the keeper: killed while it creates partitions, frozen, kept waiting by a lock of a history."""

import random
import signal
from collections.abc import Iterator

from tests.acceptance.chaos.fault import fault, repeatedly
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.stack import SETTINGS, Stack
from tests.until import wait_until

_AHEAD = """
FROM unnest('{vehicle_telemetry_history,meter_telemetry_history}'::regclass[]) history, generate_series(1, 3) n,
    to_regclass(history || to_char((now() AT TIME ZONE 'UTC')::date + n, '_YYYYMMDD')) made
"""
_COUNT = f"SELECT count(made) {_AHEAD}"
_DROP = f"SELECT 'DROP TABLE ' || made {_AHEAD} WHERE made IS NOT NULL"
_WHOLE = f"""
SELECT count(*) {_AHEAD} WHERE EXISTS (SELECT FROM pg_inherits WHERE inhparent = history AND inhrelid = made)
    AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = made AND tgname = 'no_truncate')
"""
_FAILURES = 'fleet_keeper_duty_failures_total{duty="partitions"}'
_HELD = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE %' AND wait_event = 'PgSleep'"


@fault("keeper-kill", hold_s=4.0, alone=True)
def kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Each time the keeper starts it finds no partitions of the next days; it may die while it creates them."""

    def drop_and_kill() -> None:
        _drop_ahead(stack)
        stack.kill_keeper()

    with repeatedly(drop_and_kill, rng, 0.3, 1.5):
        yield
    stack.supervise()
    _wait_for_partitions(stack)


@fault("keeper-sigstop", hold_s=2 * float(SETTINGS["FLEET_KEEPER_TIMEOUT_S"]))
def sigstop(stack: Stack, rng: random.Random) -> Iterator[None]:
    """For longer than the silence after which the database ends its session."""
    frozen = stack.keeper.process
    frozen.send(signal.SIGSTOP)
    yield
    frozen.send(signal.SIGCONT)


@fault("keeper-locked-history", hold_s=2.0, alone=True)
def locked_history(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The lock of an ANALYZE that takes long: readings of days that have a partition do not wait for it."""
    wait_until(stack.bridge.ready, "the bridge is ready")
    stack.kill_keeper()
    _drop_ahead(stack)
    with stack.locked("vehicle_telemetry_history", "SHARE UPDATE EXCLUSIVE"):
        wait_until(lambda: stack.sql(_HELD) == "1", "the history is locked")
        stack.supervise()
        yield
        wait_until(lambda: stack.keeper.metric(_FAILURES) > 0, "the keeper reports the lock")
    _wait_for_partitions(stack)


def _drop_ahead(stack: Stack) -> None:
    for statement in stack.sql(_DROP).splitlines():
        stack.sql(statement)


def _wait_for_partitions(stack: Stack) -> None:
    wait_until(lambda: stack.sql(_COUNT) == "6", "the partitions of the next days")
    if stack.sql(_WHOLE) != "6":
        raise Stuck("a partition is not whole")
