"""What one request reads from: a replica, or the primary.

A request stays with its server, so its statements never see an earlier state than those before them. If a replica
fails, the request continues at the primary, and what was found so far is found again there.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import asyncpg
from starlette.requests import Request
from starlette.responses import Response

from api.database import Connection, Pool
from api.problems import Problem, invalid, outage, unavailable
from api.replicas.position import AsOf, Position
from api.replicas.replica import Reason, Replica, Replicas, State
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.reading import format_timestamp
from bridge.store.database_errors import FOREIGN
from bridge.store.timeline import TIMELINE_SQL

_STATE = f"""
SELECT pg_is_in_recovery() AS is_replica, now() AS at,
       CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END AS replayed_at,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
        - '0/0')::int8 AS lsn,
       CASE WHEN NOT pg_is_in_recovery() THEN {TIMELINE_SQL} END AS timeline
"""
_CONFLICT = "40"
"""Class of the SQLSTATE with which a replica cancels a query that stands in the way of replaying the log."""
_REFUSED = ("08", "42", "53", "57", "58")
"""Classes with which a replica refuses: it ends, has no resources, or has not yet replayed a migration."""


READING = "reading"
"""Of a request: the key of its `Reading` in the state of the scope."""


class ReplicaLost(StoreUnavailable):
    """A replica failed. The request reads from the primary from now on: ask again."""


class Reading:
    """Connections for the questions of one request, as `api.database.connection` takes them from a pool."""

    def __init__(
        self,
        pool: Pool,
        replicas: Replicas | None = None,
        *,
        is_of_figures: bool = False,
        may_use_replicas: bool = True,
    ) -> None:
        self._pool = pool
        self._is_of_figures = is_of_figures
        self._replicas = replicas
        self._may_use_replicas = may_use_replicas
        self._replica: Replica | None = None
        self._is_decided = False
        self.wanted: AsOf | None = None
        """What the answer must contain."""
        self.as_of: datetime | None = None
        """What was committed at this time of the primary's clock is in the answer; None: not known."""
        self.is_lost = False
        """What was found so far is of a replica that has failed."""

    @property
    def started(self) -> int | None:
        """On a replica: identifies the last start of the primary whose changes it shows."""
        return None if self._replica is None else self._replica.primary.started

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection to the request's server. Raises errors of asyncpg and of `connect`, and `ReplicaLost`.

        Raises 410, 422 and 503 where no server has what the answer must contain.
        """
        if not self._is_decided:
            await self._decide()
        if (replica := self._replica) is None:
            async with self._pool.acquire() as c:
                yield c  # type: ignore[misc]  # a proxy with the connection's methods
            return
        try:
            async with replica.pools.of(self._is_of_figures).acquire() as c:
                yield c  # type: ignore[misc]
        except (*FOREIGN, StoreUnavailable) as error:
            reason = _reason(error, replica)
            if reason is None:
                raise
            raise self.leave(reason) from error

    async def expire_connections(self) -> None:
        """Of the primary, which has refused a write."""
        await self._pool.expire_connections()

    def leave(self, reason: Reason) -> ReplicaLost:
        """Read from the primary from now on. Returns the error to raise, after which the answer is given again."""
        if self._replica is not None:
            self._fall_back(reason)
            if reason == "unavailable":
                self._replica.suspect()
        self._replica, self._is_decided, self._may_use_replicas, self.is_lost = None, False, False, True
        return ReplicaLost(f"the replica cannot answer: {reason}")

    async def _decide(self) -> None:
        if self._replicas is not None and self._may_use_replicas:
            self._replica = await self._chosen(self._replicas)
        if self._replica is None and (self._replicas is not None or self.wanted is not None):
            async with self._pool.acquire() as c:
                self._check(await c.fetchrow(_STATE))
        self._is_decided = True

    async def _chosen(self, replicas: Replicas) -> Replica | None:
        """The least busy replica that has what is wanted."""
        reason: Reason | None = None
        for replica in replicas.usable():
            try:
                async with replica.pools.of(self._is_of_figures).acquire() as c:
                    state = await replica.state(c)  # type: ignore[arg-type]
            except (*FOREIGN, StoreUnavailable, Misconfigured):
                replica.suspect()
                state = None
            if state is None:
                reason = "unavailable"
            elif state.has(self.wanted):
                self.as_of = state.as_of
                replicas.answers.inc()
                return replica
            else:
                reason = "behind"
        self._fall_back(reason or replicas.why_none())
        return None

    def _fall_back(self, reason: Reason) -> None:
        if self._replicas is not None:
            self._replicas.fallbacks.labels(reason).inc()

    def _check(self, row: Any) -> None:
        """Note what the pool's server shows: the primary, or a server that only reads while no other one is there."""
        if not row["is_replica"]:
            self.as_of = row["at"]
            _refuse(self.wanted, Position(row["timeline"], row["lsn"]), row["at"])
            return
        mark = self._replicas.primary.marks.reached(row["lsn"]) if self._replicas is not None else None
        self.as_of = row["replayed_at"] if mark is None else mark.at
        state = None if mark is None else State(Position(mark.position.timeline, row["lsn"]), mark.at)
        if self.wanted is not None and (state is None or not state.has(self.wanted)):
            raise unavailable("no server that can be reached is known to have what asOf requires")


def _reason(error: Exception, replica: Replica) -> Reason | None:
    """Why the primary has to answer after this error; None where it would fail there, too."""
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return None if replica.is_replica else "unavailable"
    if isinstance(error, asyncpg.PostgresError):
        class_ = (error.sqlstate or "")[:2]
        return "conflict" if class_ == _CONFLICT else "unavailable" if class_ in _REFUSED else None
    return None if isinstance(error, ValueError) else "unavailable"


def _refuse(wanted: AsOf | None, position: Position, at: datetime) -> None:
    """Raise 410 or 422 unless the primary's state, whose end and time these are, has what is wanted."""
    if isinstance(wanted, Position):
        if wanted.timeline < position.timeline:
            raise Problem(410, "asOf is a position from before a failover: whether it was kept cannot be told")
        if wanted > position:
            raise invalid("asOf", "is not a position of this database")
    elif wanted is not None and wanted > at:
        raise invalid("asOf", f"is later than the time of the database, {format_timestamp(at)}")


async def on_replica_lost(request: Request, error: Exception) -> Response:
    """The replica of this request, or of another one whose answer it waited for, has failed: see `layers.reads`."""
    assert isinstance(error, ReplicaLost)
    reading: Reading = getattr(request.state, READING)
    reading.leave("unavailable")
    return outage(error).response()
