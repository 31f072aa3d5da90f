"""The connections for queries; writing has its own. Errors of asyncpg are translated here."""

import contextlib
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from bridge.settings.api import ApiSettings
from bridge.store.database_errors import asking

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# Plans cached by each connection: one for 92 days takes 1.4 MB of the server's memory, one for a day hardly any.
_STATEMENTS = 16

SESSION = {
    "application_name": "fleet-api",
    "jit": "off",
    "timezone": "UTC",
    # Queries of the history have their days as constants in the text (`Period.days_sql`), so a plan has only their
    # partitions and is valid until the day is over: planning each query took a third of its time.
    "plan_cache_mode": "force_generic_plan",
    # Every query can use a key. New partitions have no statistics yet, and a scan would look cheap.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


async def open_pool(settings: ApiSettings, most: int) -> Pool:
    """A pool of at most so many connections, made on first use, so that the API can start before its database."""
    return await asyncpg.create_pool(
        settings.database_url,
        min_size=0,
        max_size=most,
        timeout=settings.query_timeout_s,
        command_timeout=settings.query_timeout_s,
        server_settings=SESSION,
        statement_cache_size=_STATEMENTS,
        target_session_attrs=SessionAttribute.read_write,
        reset=_keep_session,
    )


async def _keep_session(_: object) -> None:
    """Queries leave no session state, so a connection is returned to the pool without another round trip."""


@contextlib.asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool. Raises `StoreUnavailable` for every error of the database."""
    with asking():
        async with pool.acquire() as acquired:
            yield acquired  # type: ignore[misc]  # a proxy with the connection's methods
