"""How far the primary's log is, and since when it is.

The question about it is also what a writer waits for: a mark that is asked for after a commit is behind that commit.
"""

import asyncio
from datetime import datetime
from typing import Any

import structlog

from api.database import Connection
from api.replicas.position import Mark, Marks, Position
from bridge.clock import steady_s
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.store.database_errors import asking
from bridge.store.timeline import Fence, Timeline, open_newest, timeline_of

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.25
RETRY_S = 1.0
TIMEOUT_S = 2.0
SESSION = {"application_name": "fleet-api-replicas", "synchronous_commit": "off"}
_SIGN = """
UPDATE process_status SET reported_at = clock_timestamp() WHERE program = 'api' AND instance = $1 RETURNING reported_at
"""
_STARTED = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8"
# now() is the begin of the statement: the position is that of a later moment.
_MARK = "SELECT now(), (pg_current_wal_flush_lsn() - '0/0')::int8"


class Primary:
    """The server that accepts writes, as this process knows it."""

    def __init__(self, url: str, instance: str) -> None:
        self._url = url
        self.instance = instance
        """The key of this process's row of `process_status`."""
        self._fence = Fence()
        self._connection: Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self._asked = 0
        self._newest: Mark | None = None
        self.marks = Marks()
        self.timeline: Timeline | None = None
        self.started = 0
        """Identifies its last start, as in `api.changes.AsOf`."""
        self.is_away = True
        """It could not be asked."""

    async def mark(self) -> Mark:
        """A mark that was asked for after this call. Those who call meanwhile share it. Raises `StoreUnavailable`."""
        wanted = self._asked + 1
        async with self._one_at_a_time:
            if self._asked < wanted:
                self._asked += 1
                self._newest = None
                self._newest = await self._marked()
            if self._newest is None:
                raise StoreUnavailable("the primary could not be asked")
            return self._newest

    async def sign(self) -> datetime | None:
        """Write a time to this process's row of `process_status`, which no other server has then; None without a row.

        Raises as `mark`.
        """
        async with self._one_at_a_time:
            row = await self._ask(_SIGN, self.instance)
        return None if row is None else row[0]

    async def watch(self) -> None:
        """Ask all the time."""
        reason = ""
        while True:
            try:
                await self.mark()
            except (StoreUnavailable, Misconfigured) as error:
                if reason != (reason := str(error)):
                    log.warning("the lag of replicas is not known: the primary cannot be asked", reason=reason)
                await asyncio.sleep(RETRY_S)
            else:
                reason = ""
                await asyncio.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    async def _marked(self) -> Mark:
        asked_at_s = steady_s()
        at, lsn = await self._ask(_MARK)
        assert self.timeline is not None
        mark = Mark(Position(self.timeline.number, lsn), at, asked_at_s)
        self.marks.add(mark)
        return mark

    async def _ask(self, question: str, *arguments: str) -> Any:
        """The row that answers the question. Raises `StoreUnavailable` and `Misconfigured`."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                with asking():
                    row = await (self._connection or await self._connect()).fetchrow(question, *arguments)
        except BaseException as error:
            self.is_away = True
            self.close()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("the primary does not answer") from None
            raise
        self.is_away = False
        return row

    async def _connect(self) -> Connection:
        c = self._connection = await open_newest(self._url, TIMEOUT_S, SESSION, self._fence)
        self.timeline, self.started = await timeline_of(c), await c.fetchval(_STARTED)
        return c
