"""Sessions of the programs that write, and the lock by which exactly one process of a name works.

The lock belongs to the session: what a session does it does with the lock, and a process that has lost its connection
has lost the lock too.
"""

from collections.abc import Mapping
from typing import TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from bridge.errors import LeadershipLost

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


async def open_session(url: str, timeout_s: float, settings: Mapping[str, str]) -> Connection:
    """A session on the server that accepts writes. Client and server give up a statement after `timeout_s`."""
    return await asyncpg.connect(
        url,
        timeout=timeout_s,
        command_timeout=timeout_s,
        # The same timeout on the server: a statement that waits for a lock must not outlive its client.
        server_settings={**_SETTINGS, **settings, "statement_timeout": milliseconds(timeout_s)},
        target_session_attrs=SessionAttribute.read_write,
    )


def milliseconds(seconds: float) -> str:
    """A time limit as PostgreSQL's settings have it; never 0, which would be no limit."""
    return f"{max(1, round(seconds * 1000))}"


async def take_lock(connection: Connection, space: int, name: str, holder: str) -> None:
    """Take the lock until the session ends. Raises `LeadershipLost(holder)` when another session has it."""
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", space, name):
        raise LeadershipLost(holder)
