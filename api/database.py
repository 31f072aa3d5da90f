"""The connections for queries; writing has its own. Errors of asyncpg are translated here.

Queries use a server that accepts writes, and one that only reads while there is none (a replica, or a failover that is
in progress). Then an administrative request, which writes, fails with `ReadOnlyDatabase`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeAlias

import asyncpg

from bridge.errors import ReadOnlyDatabase
from bridge.settings.api import ApiSettings
from bridge.store.database_errors import asking
from bridge.store.session import connect_any, connect_reader

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


class Pools(NamedTuple):
    """Connections to one server: for what is answered at once, and for figures, which may take seconds."""

    quick: Pool
    figures: Pool

    def of(self, is_of_figures: bool) -> Pool:
        """The pool for a question."""
        return self.figures if is_of_figures else self.quick


class Source(Protocol):
    """Where connections come from: a pool, or what a request reads from (`api.replicas.reading`)."""

    def acquire(self) -> contextlib.AbstractAsyncContextManager[Any]: ...
    async def expire_connections(self) -> None: ...


# Plans cached by each connection: one for 92 days takes 1.4 MB of the server's memory, one for a day hardly any, and
# the fold of devices 4 MB for any period.
# The longest statement, the fold of devices, has 20,000 characters; it takes 8 to 11 ms to plan.
_CACHE = {"statement_cache_size": 16, "max_cacheable_statement_size": 40_000}
_CLOSE_S = 5.0
READ_ONLY_S = 5.0
"""How long a connection to a server that only reads is used before another server is looked for."""

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
    url, timeout_s = settings.database_url, settings.query_timeout_s

    async def connect(_: str | None = None, /, **options: Any) -> Connection:
        opened, is_read_only = await connect_reader(url, timeout_s, SESSION, **_CACHE, **options)
        if is_read_only:
            asyncio.get_running_loop().call_later(READ_ONLY_S, _expire, pool)
        return opened

    pool: Pool = await _pool_of(connect, most)
    return pool


async def open_replica_pools(url: str, settings: ApiSettings) -> Pools:
    """The same for one server of `FLEET_READ_DATABASE_URL`, also while it is no replica."""

    async def connect(_: str | None = None, /, **options: Any) -> Connection:
        return await connect_any(url, settings.query_timeout_s, SESSION, **_CACHE, **options)

    return Pools(await _pool_of(connect, settings.query_pool_size), await _pool_of(connect, settings.figures_pool_size))


async def _pool_of(connect: Callable[..., Coroutine[Any, Any, Connection]], most: int) -> Pool:
    pool: Pool = await asyncpg.create_pool(min_size=0, max_size=most, connect=connect, reset=_keep_session)
    return pool


async def close_pool(pool: Pool) -> None:
    """Close it, at once if its connections do not end in time."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await pool.close()
    except (TimeoutError, OSError):
        pool.terminate()


def _expire(pool: Pool) -> None:
    """Close each connection of the pool when it is next used."""
    # It sets a number and awaits nothing, so the task ends in the next turn of the loop.
    _expiring.add(task := asyncio.ensure_future(pool.expire_connections()))
    task.add_done_callback(_expiring.discard)


_expiring: set["asyncio.Future[None]"] = set()


async def _keep_session(_: object) -> None:
    """Queries leave no session state, so a connection is returned to the pool without another round trip."""


@contextlib.asynccontextmanager
async def connection(pool: Source) -> AsyncIterator[Connection]:
    """A connection of the pool. Raises `StoreUnavailable` for every error of the database."""
    try:
        with asking():
            async with pool.acquire() as acquired:
                yield acquired
    except ReadOnlyDatabase:
        await pool.expire_connections()
        raise
