"""The replicas of `FLEET_READ_DATABASE_URL`: how far each has replayed the primary's log, and which may answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Literal, NamedTuple, TypeAlias, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from api.database import Connection, Pools, close_pool, open_replica_pools
from api.replicas.position import AsOf, Position
from api.replicas.primary import LOOK_EVERY_S, RETRY_S, SESSION, TIMEOUT_S, Primary
from bridge.clock import steady_s
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.settings.api import ApiSettings
from bridge.status import instance_of
from bridge.store.database_errors import asking
from bridge.store.session import connect_any
from bridge.store.timeline import Timeline
from bridge.url import database_host, each_database

log = structlog.get_logger(__name__)

Reason: TypeAlias = Literal["lag", "conflict", "unavailable", "behind"]
"""Why the primary answers: no replica is within the lag limit; a replica cancelled a query to replay the log; no
replica can be used, or one failed; none has what the request requires."""

_STALE_S = 4 * LOOK_EVERY_S
_STATE = "SELECT pg_is_in_recovery(), (pg_last_wal_replay_lsn() - '0/0')::int8"
_SIGNED = "SELECT reported_at FROM process_status WHERE program = 'api' AND instance = $1"
_LOOK_AGAIN_S = 0.05


class State(NamedTuple):
    """What a replica shows."""

    position: Position
    as_of: datetime
    """Everything that was committed at this time of the primary's clock is in it."""

    def has(self, wanted: AsOf | None) -> bool:
        """Whether an answer from this state contains what is wanted."""
        if isinstance(wanted, Position):
            return self.position.timeline == wanted.timeline and self.position.lsn >= wanted.lsn
        return wanted is None or self.as_of >= wanted


class Replica:
    """One replica, which is looked at all the time."""

    def __init__(self, url: str, primary: Primary, pools: Pools) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._follows: Timeline | None = None
        self._lsn = 0
        self._looked_at_s = float("-inf")
        self.name = database_host(url)
        self.primary = primary
        self.pools = pools

    @property
    def is_replica(self) -> bool:
        """Whether it was found to replay the primary's log, a moment ago."""
        return self._follows_primary and steady_s() - self._looked_at_s < _STALE_S

    @property
    def _follows_primary(self) -> bool:
        return self._follows is not None and self._follows == self.primary.timeline

    @property
    def lag_s(self) -> float:
        """How old the newest state is that it is known to show; infinity if that is not known."""
        mark = self.primary.marks.reached(self._lsn)
        return steady_s() - mark.asked_at_s if mark is not None else float("inf")

    @property
    def busy(self) -> int:
        """Its connections that are in use."""
        return sum(pool.get_size() - pool.get_idle_size() for pool in self.pools)

    async def state(self, c: Connection) -> State | None:
        """What the statements that follow on this connection will find at least; None if that cannot be told."""
        is_replica, lsn = await c.fetchrow(_STATE)  # type: ignore[misc]  # it is a row
        mark = self.primary.marks.reached(lsn) if is_replica else None
        if mark is None:
            self.suspect()
            return None
        return State(Position(mark.position.timeline, lsn), mark.at)

    def suspect(self) -> None:
        """Do not use it before it has been looked at again."""
        self._looked_at_s = float("-inf")

    async def watch(self) -> None:
        """Look at it all the time."""
        reason = ""
        while True:
            try:
                await self._look()
            except (StoreUnavailable, Misconfigured) as error:
                self.suspect()
                if reason != (reason := str(error)):
                    log.warning("replica not used", replica=self.name, reason=reason)
                await asyncio.sleep(RETRY_S)
            else:
                if reason:
                    log.info("replica used again", replica=self.name)
                reason = ""
                await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Close its connections."""
        self._disconnect()
        for pool in self.pools:
            await close_pool(pool)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._follows = None

    async def _look(self) -> None:
        """Raises `StoreUnavailable` and `Misconfigured`; the next look connects again."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                with asking():
                    c = self._connection = self._connection or await connect_any(self._url, TIMEOUT_S, SESSION)
                    await self._require_follower(c)
                    is_replica, lsn = await c.fetchrow(_STATE)  # type: ignore[misc]  # it is a row
        except BaseException as error:
            self._disconnect()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("it does not answer, or lacks what was just written to the primary") from None
            raise
        if not is_replica:
            raise StoreUnavailable("it accepts writes")
        self._lsn, self._looked_at_s = lsn, steady_s()

    async def _require_follower(self, c: Connection) -> None:
        """Wait until it has what is written to the primary now, unless it is known to follow that one.

        It may follow a server that a failover has replaced, whose positions in the log mean other commits.
        """
        if self._follows_primary:
            return
        signed = None
        while signed is None or await c.fetchval(_SIGNED, self.primary.instance) != signed:
            signed = signed or await self.primary.sign()
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._follows = self.primary.timeline


class Replicas:
    """All replicas, and what is counted about them."""

    def __init__(
        self, replicas: Sequence[Replica], primary: Primary, most_lag_s: float, registry: CollectorRegistry
    ) -> None:
        self._replicas = replicas
        self._most_lag_s = most_lag_s
        self._turn = 0
        self.primary = primary
        self.answers = Counter("fleet_replica_answers", "Answers that a replica began.", registry=registry)
        self.fallbacks = Counter(
            "fleet_replica_fallbacks", "Answers that the primary gave instead.", ["reason"], registry=registry
        )
        for reason in get_args(Reason):
            self.fallbacks.labels(reason)
        lag = Gauge(
            "fleet_replica_lag_seconds", "Age of the state that a replica shows.", ["replica"], registry=registry
        )
        usable = Gauge("fleet_replica_usable", "1: the replica may answer.", ["replica"], registry=registry)
        for replica in replicas:
            lag.labels(replica.name).set_function(partial(_lag_s, replica))
            usable.labels(replica.name).set_function(partial(self._may_answer, replica))

    def usable(self) -> list[Replica]:
        """Those that may answer, the least busy one first; equally busy ones by turns."""
        self._turn += 1
        first = self._turn % len(self._replicas)
        in_turn = [*self._replicas[first:], *self._replicas[:first]]
        return sorted(filter(self._may_answer, in_turn), key=attrgetter("busy"))

    def why_none(self) -> Reason:
        """Why there is none."""
        return "lag" if any(replica.is_replica for replica in self._replicas) else "unavailable"

    def _may_answer(self, replica: Replica) -> bool:
        """While the primary is away, the lag limit does not apply: nothing newer can be had."""
        return replica.is_replica and (replica.lag_s <= self._most_lag_s or self.primary.is_away)


def _lag_s(replica: Replica) -> float:
    return replica.lag_s


@contextlib.asynccontextmanager
async def watched(settings: ApiSettings, registry: CollectorRegistry) -> AsyncIterator[Replicas | None]:
    """The replicas of the settings, looked at in the block; None where there are none."""
    if settings.read_database_url is None:
        yield None
        return
    primary = Primary(settings.database_url, instance_of(settings.http_port))
    hosts = each_database(settings.read_database_url)
    own = [Replica(url, primary, await open_replica_pools(url, settings)) for url in hosts]
    replicas = Replicas(own, primary, settings.replica_lag_limit_s, registry)
    with contextlib.suppress(StoreUnavailable, Misconfigured):
        await primary.mark()
    tasks = [asyncio.create_task(primary.watch()), *(asyncio.create_task(replica.watch()) for replica in own)]
    try:
        yield replicas
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        primary.close()
        for replica in own:
            await replica.close()
