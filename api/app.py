"""The service put together: the ingest and its writer, the keys, the routes, and the front around them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog
from fastapi import FastAPI
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from api import analytics, assignments, devices, health, history, live, openapi, problems
from api.body import BodyBudget
from api.bulk import body_limits
from api.database import Pool, open_pool
from api.front import Front
from api.ingest import IngestDoor
from api.keyring import Keyring
from api.services import Services
from api.settings import ApiSettings
from bridge.errors import StoreUnavailable
from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics
from bridge.store import PostgresStore

log = structlog.get_logger(__name__)

_CLOSE_S = 5.0
_BULK = (devices, assignments)
"""The modules with routes that take many rows."""


@contextlib.asynccontextmanager
async def service(settings: ApiSettings, on_failure: Callable[[], None]) -> AsyncIterator[Front]:
    """The application, with its writer running. On leaving, what was taken is written and answered.

    `on_failure` is called when the writer ends on its own: nothing can be stored any more. What ended it is raised
    on leaving. Raises `Misconfigured` when the promise cannot be kept with this database.
    """
    registry = _registry()
    store = _store(settings)
    await _check(store)
    ingest = _ingest(settings, store, registry)
    pool = await open_pool(settings)
    keyring = Keyring(pool, settings.database_url)
    app = _routes(settings, Services(settings, pool, registry))
    writing = asyncio.create_task(ingest.run())
    writing.add_done_callback(lambda _: on_failure())
    try:
        async with keyring.running():
            budget = BodyBudget(settings.http_body_budget_mib * 1024 * 1024)
            door = IngestDoor(settings, ingest, budget)
            yield Front(settings, app, door, keyring, registry, budget, _body_limits())
    finally:
        ingest.stop()
        await writing
        await store.close()
        await _close(pool)


def _body_limits() -> dict[tuple[str, str], int]:
    return body_limits(route for module in _BULK for route in module.bulk.routes)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    return registry


def _store(settings: ApiSettings) -> PostgresStore:
    return PostgresStore(
        settings.database_url,
        source="http",
        command_timeout_s=settings.command_timeout_s,
        partitions_ahead_days=settings.partitions_ahead_days,
        interval_s=settings.reading_interval_s,
    )


async def _check(store: PostgresStore) -> None:
    """Find out now if the database cannot keep the promise; one that is away may come back."""
    try:
        await store.connect()
    except StoreUnavailable as error:
        log.warning("waiting for the store", reason=str(error))


def _ingest(settings: ApiSettings, store: PostgresStore, registry: CollectorRegistry) -> Ingest:
    return Ingest(
        store,
        batch_size=settings.batch_size,
        batch_age_s=settings.http_batch_age_ms / 1000,
        capacity=settings.capacity,
        metrics=IngestMetrics(registry),
        give_up_after_s=settings.http_timeout_s,
    )


def _routes(settings: ApiSettings, services: Services) -> FastAPI:
    app = FastAPI(
        title="Fleet energy bridge",
        description="Readings of vehicles and meters in; live state, history and energy figures out.",
        version="1",
        redoc_url=None,
    )
    app.state.services = services
    for routes in (live, history, analytics, devices, assignments, health):
        app.include_router(routes.router)
    for routes in _BULK:
        app.include_router(routes.bulk)
    problems.install(app)
    openapi.install(app)
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "PUT", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Link", "X-Next-Cursor", "Retry-After"],
        )
    return app


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await pool.close()
    except (TimeoutError, OSError):
        pool.terminate()
