"""Detects a pooler that gives the server's session to another client between two transactions.

Behind such a pooler (PgBouncer with `pool_mode = transaction`) settings, prepared statements, temporary tables and
locks belong to a session that others use too: two bridges would both hold the lock of their name.
"""

import asyncio
import contextlib

import asyncpg

from bridge.errors import Misconfigured, StoreUnavailable
from bridge.store.database_errors import TRANSACTION_POOLING, asking
from bridge.store.session import Connection

_TIMEOUT_S = 5.0
_NEW_ENOUGH = 2
_OWN = "SELECT pg_backend_pid(), clock_timestamp()"
_OTHER = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


async def require_own_session(connection: Connection, url: str) -> None:
    """Return if the server's session is that of this connection only.

    Raises `Misconfigured` if it is not, and `StoreUnavailable` if a pooler has no other sessions to find out.
    """
    with asking():
        own: int = await connection.fetchval(_OWN)
    # A server tells its process id when the client connects; a pooler has another number there.
    if own == connection.get_server_pid():
        return
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            is_shared = await _is_shared(connection, own, url)
    except TimeoutError as error:
        raise StoreUnavailable("the pooler has no two further sessions free to check its mode with") from error
    if is_shared:
        raise Misconfigured(TRANSACTION_POOLING)


async def _is_shared(connection: Connection, own: int, url: str) -> bool:
    """Whether another client is given the session of this one, or this one another session.

    Each other client holds its session by an open transaction. One whose session was started for it has found none
    that was free, so that of this connection was not. Two such are needed, because a third client may have started one.
    """
    new = 0
    async with contextlib.AsyncExitStack() as others:
        while new < _NEW_ENOUGH:
            with asking():
                other: Connection = await asyncpg.connect(url, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
                others.callback(other.terminate)
                pid, now = await _row(connection, _OWN)
                if pid != own:
                    return True
                await other.execute("BEGIN")
                pid, started_at = await _row(other, _OTHER)
                if pid == own:
                    return True
            new += started_at > now
    return False


async def _row(connection: Connection, sql: str) -> asyncpg.Record:
    row = await connection.fetchrow(sql)
    assert row is not None
    return row
