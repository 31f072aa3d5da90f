"""Sessions of all programs, and the lock by which exactly one process of a name works.

The lock belongs to the session: what a session does it does with the lock, and a process that has lost its connection
has lost the lock too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from bridge.errors import LeadershipLost, Misconfigured, ReadOnlyDatabase, StoreUnavailable
from bridge.store.database_errors import READ_ONLY, TRANSACTION_POOLING, asking
from bridge.url import split_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_SETTINGS = {
    "jit": "off",
    "timezone": "UTC",
    # The keeper's marks (docs/decisions/0026) require that each statement sees what was committed before it.
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_NAME = "application_name"
_UNSET = "SELECT array_agg(name ORDER BY name) FROM pg_settings WHERE name = ANY($1) AND source <> 'session'"


class Reader(NamedTuple):
    """A session for queries."""

    connection: Connection
    is_read_only: bool
    """The server accepts no writes."""


async def open_session(url: str, timeout_s: float, settings: Mapping[str, str]) -> Connection:
    """A session on the server that accepts writes. Client and server give up a statement after `timeout_s`.

    Raises as `connect`.
    """
    # The same timeout on the server: a statement that waits for a lock must not outlive its client.
    return await connect(url, timeout_s, {**_SETTINGS, **settings, "statement_timeout": milliseconds(timeout_s)})


async def connect(url: str, timeout_s: float, settings: Mapping[str, str], **options: Any) -> Connection:
    """A session with these settings on the server of the URL that accepts writes. `options` are those of asyncpg.

    Raises `ReadOnlyDatabase` when no server accepts writes, `StoreUnavailable`, or `Misconfigured`.
    """
    opened = await connect_reader(url, timeout_s, settings, **options)
    if opened.is_read_only:
        opened.connection.terminate()
        raise ReadOnlyDatabase(READ_ONLY)
    return opened.connection


async def connect_reader(url: str, timeout_s: float, settings: Mapping[str, str], **options: Any) -> Reader:
    """The same, or on a server that only reads where no server accepts writes. Raises as `connect` otherwise."""
    try:
        opened = await _connect(url, timeout_s, settings, SessionAttribute.read_write, options)
    except StoreUnavailable as error:
        # The error of several hosts is that of one that cannot be reached, though another one only reads.
        is_unreachable = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, TimeoutError)
        if not (isinstance(error, ReadOnlyDatabase) or (is_unreachable and "," in split_database(url).netloc)):
            raise
    else:
        return Reader(opened, is_read_only=False)
    return Reader(await _connect(url, timeout_s, settings, SessionAttribute.any, options), is_read_only=True)


async def _connect(
    url: str, timeout_s: float, settings: Mapping[str, str], target: SessionAttribute, options: Mapping[str, Any]
) -> Connection:
    named = {_NAME: settings[_NAME]} if _NAME in settings else {}
    given = {"command_timeout": timeout_s, **options}
    with asking():
        connection: Connection = await asyncpg.connect(
            url, timeout=timeout_s, server_settings=named, target_session_attrs=target, **given
        )
        try:
            await _set(connection, {name: value for name, value in settings.items() if name != _NAME})
        except BaseException:
            connection.terminate()
            raise
    return connection


async def _set(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set them in the session, because PgBouncer refuses a client that has them in its startup message."""
    if not settings:
        return
    await connection.execute("; ".join(f"SET {name} TO '{value}'" for name, value in settings.items()))
    if unset := await connection.fetchval(_UNSET, list(settings)):
        raise Misconfigured(f"the session does not keep {', '.join(unset)}: {TRANSACTION_POOLING}")


def milliseconds(seconds: float) -> str:
    """A time limit as PostgreSQL's settings have it; never 0, which would be no limit."""
    return f"{max(1, round(seconds * 1000))}"


async def take_lock(connection: Connection, space: int, name: str, holder: str) -> None:
    """Take the lock until the session ends. Raises `LeadershipLost(holder)` when another session has it."""
    if not await connection.fetchval("SELECT take_leadership($1, $2)", space, name):
        raise LeadershipLost(holder)
