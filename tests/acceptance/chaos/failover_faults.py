"""What happens to a primary with a synchronous standby, to the standby, and to the way between them."""

import random
from collections.abc import Iterator

from tests.acceptance.chaos.fault import fault, link_faults, repeatedly
from tests.acceptance.chaos.pair_stack import PairStack, Server
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.reader import Reader
from tests.acceptance.chaos.stack import start_again
from tests.until import wait_until

_BEYOND_COMMIT_TIMEOUT_S = 3.0
_HISTORIES = ("vehicle_telemetry_history", "meter_telemetry_history")
_ROWS = " UNION ALL ".join(f"SELECT count(*) FROM {history}" for history in _HISTORIES)
_RELEASE = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
_FROM_REPLICA, _INSTEAD = "fleet_replica_answers_total", "fleet_replica_fallbacks_total"
_WRITERS = "SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE application_name = 'fleet-bridge'"

link_faults("postgres-standby-link", lambda stack: [stack.primary.feed], _BEYOND_COMMIT_TIMEOUT_S, on=PairStack)


@fault("postgres-standby-kill", hold_s=2.0, on=PairStack)
def standby_kill(stack: PairStack, rng: random.Random) -> Iterator[None]:
    """Commits wait for it, so nothing is acknowledged meanwhile."""
    stack.standby.postgres.process.kill()
    stack.kills += 1
    yield
    start_again(stack.standby.postgres)
    stack.wait_for_standby()


@fault("postgres-replica-kill", hold_s=2.0, alone=True, on=PairStack)
def replica_kill(stack: PairStack, rng: random.Random) -> Iterator[None]:
    """The standby answers questions; the primary does while it is away, from the state that was shown before on."""
    with Reader(stack.api_client) as reader:
        _wait_for_more(reader, _FROM_REPLICA, "the replica answers")
        fault = standby_kill(stack, rng)
        next(fault)
        _wait_for_more(reader, _INSTEAD, "the primary answers instead")
        yield
        next(fault, None)
        _wait_for_more(reader, _FROM_REPLICA, "the replica answers again")


@fault("postgres-failover", hold_s=2.0, on=PairStack, traffic_s=10.0)
def failover(stack: PairStack, rng: random.Random) -> Iterator[None]:
    yield from _replace_primary(stack)


@fault("postgres-failover-behind", hold_s=2.0, alone=True, on=PairStack, traffic_s=10.0)
def failover_behind(stack: PairStack, rng: random.Random) -> Iterator[None]:
    """The standby is cut off, and an administrator releases the commits that wait for it: the primary alone has them.

    They were not acknowledged, also when they were found in the history at the next attempt.
    """
    released: list[str] = []
    stack.primary.feed.stall()
    with repeatedly(lambda: released.extend(stack.sql(_RELEASE).split()), rng, 0.05, 0.3):
        wait_until(lambda: len(released) > 4, "commits wait for the standby")
    yield from _replace_primary(stack)


@fault("postgres-old-primary-alone", hold_s=5.0, alone=True, on=PairStack, traffic_s=20.0)
def old_primary_alone(stack: PairStack, rng: random.Random) -> Iterator[None]:
    """Programs that have seen the new primary reach only the old one, and write nothing to it."""
    fenced = _replace_primary(stack)
    next(fenced)
    wait_until(lambda: int(stack.sql(_WRITERS)) >= 2, "bridge and API have found the new primary")
    stack.primary.link.swallow()
    yield
    stack.primary.link.heal()
    next(fenced, None)


def _replace_primary(stack: PairStack) -> Iterator[None]:
    """A failover; the old primary comes back, stays as long as the fault lasts, and becomes the standby."""
    old = stack.fail_over()
    rows = _rows(old)
    yield
    if (written := _rows(old)) != rows:
        raise Stuck(f"readings were written to a primary that was replaced: {rows}, then {written}")
    stack.rebuild_standby()


def _wait_for_more(reader: Reader, metric: str, what: str) -> None:
    before = reader.count(metric)
    wait_until(lambda: reader.count(metric) > before + 5, what)


def _rows(server: Server) -> list[str]:
    return server.postgres.sql(_ROWS, "chaos").splitlines()
