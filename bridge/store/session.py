"""Sessions of all programs, and the lock by which exactly one process of a name works.

The lock belongs to the session: what a session does it does with the lock, and a process that has lost its connection
has lost the lock too.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from bridge.errors import LeadershipLost, Misconfigured, ReadOnlyDatabase, StoreUnavailable
from bridge.store.database_errors import TRANSACTION_POOLING, asking
from bridge.url import each_database

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
_MOST_PATIENCE_S = 5.0
"""Maximum time for one of several hosts: the host of a failed primary may neither answer nor refuse."""
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
    return await connect(url, timeout_s, _for_work(timeout_s, settings))


async def open_each(url: str, timeout_s: float, settings: Mapping[str, str]) -> list[Connection]:
    """The same on each host that accepts writes, at least one: two do when an old primary has come back."""
    return await _connect_each(url, timeout_s, _for_work(timeout_s, settings))


def _for_work(timeout_s: float, settings: Mapping[str, str]) -> dict[str, str]:
    # The same timeout on the server: a statement that waits for a lock must not outlive its client.
    return {**_SETTINGS, **settings, "statement_timeout": milliseconds(timeout_s)}


async def connect(url: str, timeout_s: float, settings: Mapping[str, str], **options: Any) -> Connection:
    """A session with these settings on the server of the URL that accepts writes. `options` are those of asyncpg.

    Raises `ReadOnlyDatabase` when no server accepts writes, `StoreUnavailable`, or `Misconfigured`.
    """
    return await _first(url, timeout_s, settings, SessionAttribute.read_write, options)


async def connect_reader(url: str, timeout_s: float, settings: Mapping[str, str], **options: Any) -> Reader:
    """The same, or on a server that only reads where no server accepts writes. Raises as `connect` otherwise."""
    try:
        opened = await connect(url, timeout_s, settings, **options)
    except ReadOnlyDatabase:
        return Reader(await connect_any(url, timeout_s, settings, **options), is_read_only=True)
    return Reader(opened, is_read_only=False)


async def connect_any(url: str, timeout_s: float, settings: Mapping[str, str], **options: Any) -> Connection:
    """The same on the first server that can be reached, whether it accepts writes or not."""
    return await _first(url, timeout_s, settings, SessionAttribute.any, options)


async def _connect_each(url: str, timeout_s: float, settings: Mapping[str, str]) -> list[Connection]:
    """A session on each host of the URL that accepts writes, at least one. Raises as `connect`."""
    hosts = each_database(url)
    patience_s = _patience_s(timeout_s, hosts)
    opening = [
        asyncio.ensure_future(_connect(host, patience_s, timeout_s, settings, SessionAttribute.read_write, {}))
        for host in hosts
    ]
    try:
        found = await asyncio.gather(*opening, return_exceptions=True)
    except asyncio.CancelledError:
        for each in opening:
            if each.done() and not each.cancelled() and each.exception() is None:
                each.result().terminate()
        raise
    sessions = [outcome for outcome in found if not isinstance(outcome, BaseException)]
    errors = [outcome for outcome in found if isinstance(outcome, BaseException)]
    away = [error for error in errors if isinstance(error, StoreUnavailable)]
    if len(away) < len(errors):
        for session in sessions:
            session.terminate()
        raise next(error for error in errors if error not in away)
    if not sessions:
        raise _telling(away)
    return sessions


async def _first(
    url: str, timeout_s: float, settings: Mapping[str, str], target: SessionAttribute, options: Mapping[str, Any]
) -> Connection:
    """A session on the first host that the target fits. Raises as `connect`."""
    errors: list[StoreUnavailable] = []
    # One host after the other, because asyncpg has one time limit for all: a host that is silent would use it up.
    for host in (hosts := each_database(url)):
        try:
            return await _connect(host, _patience_s(timeout_s, hosts), timeout_s, settings, target, options)
        except StoreUnavailable as error:
            errors.append(error)
    raise _telling(errors)


def _telling(errors: Sequence[StoreUnavailable]) -> StoreUnavailable:
    """That of a server that answered, if one did."""
    return next((error for error in errors if isinstance(error, ReadOnlyDatabase)), errors[-1])


def _patience_s(timeout_s: float, hosts: Sequence[str]) -> float:
    """How long to wait for one of the hosts."""
    return timeout_s if len(hosts) == 1 else min(timeout_s / len(hosts), _MOST_PATIENCE_S)


async def _connect(
    url: str,
    patience_s: float,
    timeout_s: float,
    settings: Mapping[str, str],
    target: SessionAttribute,
    options: Mapping[str, Any],
) -> Connection:
    named = {_NAME: settings[_NAME]} if _NAME in settings else {}
    given = {"command_timeout": timeout_s, **options}
    with asking():
        connection: Connection = await asyncpg.connect(
            url, timeout=patience_s, server_settings=named, target_session_attrs=target, **given
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
