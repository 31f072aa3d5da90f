"""Waits for the transactions that have inserted into a history, as CREATE INDEX CONCURRENTLY does.

Every transaction that has inserted into the history holds a lock of it until it ends, when its rows are visible.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime

from bridge.contract import Kind
from bridge.store.database_errors import TransactionOpen
from bridge.store.session import Connection

_PATIENCE_S = 1.0
"""How long one call waits, so that other duties have their turn."""
_POLL_S = 0.01
_WRITERS = """
SELECT pid, virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = $1::text::regclass
"""


@dataclass(slots=True)
class _Wait:
    connection: Connection
    marked: datetime
    began: float
    writers: set[tuple[object, ...]]


class Writers:
    """Of one kind's history."""

    def __init__(self, kind: Kind, timeout_s: float) -> None:
        self._history = kind.history_table
        self._timeout_s = timeout_s
        self._wait: _Wait | None = None

    async def ended(self, connection: Connection, marked: datetime) -> bool:
        """Whether all have ended that ran when this was first asked after the mark was moved to `marked`.

        It waits for a second at most. Raises `TransactionOpen` when one has not ended after the time limit.
        """
        asked, running, wait = time.monotonic(), await self._running(connection), self._wait
        if wait is None or wait.connection is not connection or wait.marked != marked:
            wait = self._wait = _Wait(connection, marked, asked, running)
        wait.writers &= running
        while wait.writers and time.monotonic() < asked + _PATIENCE_S:
            await asyncio.sleep(_POLL_S)
            wait.writers &= await self._running(connection)
        if wait.writers and time.monotonic() > wait.began + self._timeout_s:
            pids = ", ".join(str(pid) for pid, _ in wait.writers)
            raise TransactionOpen(f"a transaction that has written to {self._history} does not end (pid {pids})")
        return not wait.writers

    async def _running(self, connection: Connection) -> set[tuple[object, ...]]:
        return {tuple(row) for row in await connection.fetch(_WRITERS, self._history)}
