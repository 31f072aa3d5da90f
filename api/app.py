"""Assembles the service: the ingest and its writer, the keys, the routes, and the layers around them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from api import (
    alarm_rules,
    alarms,
    analytics,
    assignments,
    devices,
    documentation,
    efficiency,
    energy_by_time,
    health,
    history,
    key_management,
    live,
    openapi,
    page,
    problems,
    quality,
    rejects,
    replays,
    series,
    sessions,
    system,
    webhooks,
)
from api.body import Pace
from api.body_budget import BodyBudget
from api.database import Pools, close_pool, open_pool
from api.ingest import Destination, IngestEndpoint
from api.ingest_database import IntoDatabase
from api.ingest_stream import IntoStream
from api.keyring import Keyring
from api.layers import Layer, around
from api.layers.authentication import Authentication
from api.layers.bodies import Bodies
from api.layers.deadline import Deadline
from api.layers.errors import Errors
from api.layers.head import Head
from api.layers.headers import Headers
from api.layers.metrics import Metrics
from api.layers.queries import Queries
from api.layers.reads import Reads
from api.layers.routes import Endpoints, Routes
from api.layers.sight import Sights
from api.layers.turns import Questions
from api.rate import RateLimit
from api.remembered import Remembered
from api.replicas.reading import ReplicaLost, on_replica_lost
from api.replicas.replica import Replicas, watched
from api.routing import PlainRoute, RouteTable
from api.services import Services
from api.stream import route as stream
from api.stream.hub import Hub
from bridge.clock import Clock
from bridge.errors import StoreUnavailable
from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics, measure_clock, measure_rejects_not_kept
from bridge.settings.api import ApiSettings
from bridge.status import Status, reporting
from bridge.store.postgres import PostgresStore
from bridge.store.quotas import Quotas
from bridge.streams.port import Stream
from bridge.streams.publishing import Publisher
from bridge.url import database_host
from bridge.writer_status import WriterStatus

log = structlog.get_logger(__name__)

_KEY_CONNECTIONS = 2
"""Of their own, so that a look-up of a key does not wait for the questions of others."""
_UNKNOWN_PER_S, _UNKNOWN_BURST = 50.0, 500
"""Keys of an address that may turn out to be unknown."""
_ROUTERS = (
    *(
        stream.router,
        live.router,
        history.router,
        analytics.router,
        energy_by_time.router,
        efficiency.router,
        series.router,
        sessions.router,
        quality.router,
        devices.router,
        assignments.router,
        key_management.router,
        alarms.router,
        alarm_rules.router,
        webhooks.router,
        system.router,
        replays.router,  # whose path is fixed, so it is found before one with an id
        rejects.router,
    ),
    *(devices.bulk, assignments.bulk, health.router, documentation.router, page.router),
)


@contextlib.asynccontextmanager
async def service(
    settings: ApiSettings, stopping: asyncio.Event, registry: CollectorRegistry, target: Stream | None = None
) -> AsyncIterator[ASGIApp]:
    """The application, with its writer running. On exit, the accepted requests are written and answered.

    With a `target`, readings go into that stream instead of the database.

    When `stopping` is set, live streams end. The service sets it when the writer ends unexpectedly: nothing can be
    stored any more. Its exception is raised on exit. Raises `Misconfigured` when the guarantee cannot be given with
    this database.
    """
    clock = Clock(settings.clock_limit_s)
    measure_clock(clock, registry)
    quotas = Quotas(settings.quota)
    measure_rejects_not_kept(quotas.not_kept, registry)
    store = _store(settings, clock, quotas)
    await _check(store, settings.database_url)
    metrics = IngestMetrics(registry)
    ingest, status = _ingest(settings, store, clock, metrics), WriterStatus(metrics)
    pools = Pools(
        await open_pool(settings, settings.query_pool_size), await open_pool(settings, settings.figures_pool_size)
    )
    of_keys = await open_pool(settings, _KEY_CONNECTIONS)
    keyring = Keyring(of_keys, settings.database_url)
    budget = BodyBudget(settings.http_body_budget_mib * 1024 * 1024)
    publisher = None if target is None else Publisher(target)
    destination: Destination = IntoDatabase(settings, ingest) if publisher is None else IntoStream(settings, publisher)
    app = application(IngestEndpoint(settings, destination, budget, pools.quick))
    streams = Hub(settings, registry)
    app.state.services = Services(
        settings, pools.quick, registry, keyring, streams, clock, publisher, asyncio.Lock(), Remembered()
    )
    app.state.services_of_figures = replace(app.state.services, pool=pools.figures)
    writing, publishing = asyncio.create_task(ingest.run()), asyncio.create_task(_publishing(publisher))
    for task in (writing, publishing):
        task.add_done_callback(lambda _: stopping.set())
    try:
        async with (
            keyring.running(),
            streams.running(stopping),
            _reporting(settings, ingest, clock, status),
            watched(settings, registry) as replicas,
        ):
            yield layered(app, settings, keyring, registry, budget, pools, replicas)
    finally:
        ingest.stop()
        await writing
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing
        await store.close()
        for each in (*pools, of_keys):
            await close_pool(each)


async def _publishing(publisher: Publisher | None) -> None:
    """Keep the connection to the stream, if there is one. Raises `Misconfigured`."""
    if publisher is not None:
        await publisher.run()
    await asyncio.get_running_loop().create_future()


def layered(
    app: FastAPI,
    settings: ApiSettings,
    keyring: Keyring,
    registry: CollectorRegistry,
    budget: BodyBudget,
    pools: Pools,
    replicas: Replicas | None = None,
) -> ASGIApp:
    """The application within its layers, in the order in which a request passes them.

    Raises `ValueError` for a route that does not declare its scope and what limited keys get.
    """
    rate = RateLimit(settings.rate_limit_per_s, settings.rate_limit_burst)
    layers: list[Layer] = [
        partial(Routes, table=RouteTable(app.routes)),
        partial(Metrics, registry=registry),
        Headers,
        *_cross_origin(settings.cors_origins),
        Errors,
        partial(Deadline, timeout_s=settings.http_request_timeout_s),
        Head,
        partial(Authentication, keyring=keyring, rate=rate, unknown=RateLimit(_UNKNOWN_PER_S, _UNKNOWN_BURST)),
        Queries,
        partial(Sights, pool=pools.quick),
        partial(Bodies, budget=budget, pace=Pace(settings.http_body_timeout_s, settings.http_body_least_bytes_per_s)),
        partial(Questions, per_key=settings.query_max_per_key),
        *([partial(Reads, pools=pools, replicas=replicas)] if replicas is not None else []),
    ]
    return around(Endpoints(app), layers)


def _cross_origin(origins: str) -> list[Layer]:
    """Answers preflights of these origins, which carry no key, and allows their pages to read the responses."""
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    if not allowed:
        return []
    cors = partial(
        CORSMiddleware,
        allow_origins=allowed,
        allow_methods=["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "Last-Event-ID"],
        expose_headers=[
            *("Content-Disposition", "Link", "X-Next-Cursor", "Retry-After", "ETag"),
            *("X-As-Of", "X-Position"),
        ],
    )
    return [cors]


def application(ingest: ASGIApp) -> FastAPI:
    """Every route, without a database yet; `ingest` is an object that answers POST /v1/ingest."""
    routes: list[BaseRoute] = [PlainRoute("POST", "/v1/ingest", ingest, openapi.INGEST)]
    for router in _ROUTERS:
        routes += router.routes
    app = FastAPI(
        title="Fleet energy bridge",
        description="Ingest readings of vehicles and meters; query live state, history and energy analytics.",
        version="1",
        routes=routes,
        redirect_slashes=False,
        openapi_url=None,
    )
    problems.install(app)
    app.add_exception_handler(ReplicaLost, on_replica_lost)
    openapi.install(app)
    return app


def _store(settings: ApiSettings, clock: Clock, quotas: Quotas) -> PostgresStore:
    return PostgresStore(
        settings.database_url,
        source="http",
        command_timeout_s=settings.write_timeout_s,
        interval_s=settings.reading_interval_s,
        clock=clock,
        quotas=quotas,
        copy_above=settings.copy_above,
    )


async def _check(store: PostgresStore, database_url: str) -> None:
    """Fail at start if the database cannot give the guarantee; an unavailable database is only logged."""
    try:
        await store.connect()
    except StoreUnavailable as error:
        log.warning("database unavailable at startup", reason=str(error), database=database_host(database_url))


def _ingest(settings: ApiSettings, store: PostgresStore, clock: Clock, metrics: IngestMetrics) -> Ingest:
    return Ingest(
        store,
        clock,
        batch_size=settings.batch_size,
        batch_age_s=settings.http_batch_wait_ms / 1000,
        capacity=settings.buffer_capacity,
        metrics=metrics,
        give_up_after_s=settings.commit_timeout_s,
    )


def _reporting(
    settings: ApiSettings, ingest: Ingest, clock: Clock, status: WriterStatus
) -> contextlib.AbstractAsyncContextManager[None]:
    """Tell others about this process in the block."""

    def look() -> Status:
        return status.look(ingest, "the database is unavailable" if ingest.retrying else clock.problem)

    return reporting(settings.database_url, "api", settings.http_port, look)
