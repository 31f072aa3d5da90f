"""/healthz, /readyz and /metrics."""

import asyncio

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api.database import connection
from api.problems import unavailable
from api.routing import NOTHING, PUBLIC, needs
from api.services import WithServices
from bridge.clock import steady_s
from bridge.contract import KINDS
from bridge.errors import StoreUnavailable

router = APIRouter(tags=["operation"])

_PROBE_TIMEOUT_S = 2.0
# A server that accepts connections is not enough: the tables must exist.
_PROBE = "SELECT clock_timestamp(), current_setting('transaction_read_only') = 'on', " + " AND ".join(
    f"to_regclass('{kind.live_table}') IS NOT NULL" for kind in KINDS
)


@router.get("/healthz", operation_id="getHealth", summary="Check that the process is running", openapi_extra=PUBLIC)
async def healthz() -> dict[str, str]:
    """The process is running."""
    return {"status": "ok"}


@router.get("/readyz", operation_id="getReadiness", summary="Check that readings can be stored", openapi_extra=PUBLIC)
async def readyz(services: WithServices) -> dict[str, str]:
    """The database responds within two seconds, accepts writes, has the tables, and its clock agrees with that of the
    API; the stream can be published to, if readings go there."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S), connection(services.pool) as c:
            asked_at_s = steady_s()
            found = await c.fetchrow(_PROBE)
    except (StoreUnavailable, TimeoutError):
        raise unavailable("the database does not respond") from None
    assert found is not None
    database_time, is_read_only, is_migrated = found
    services.clock.compare(database_time, asked_at_s)
    if is_read_only:
        raise unavailable("the database is read-only: no reading can be stored")
    if not is_migrated:
        raise unavailable("the database has no tables yet: run `python -m bridge migrate`")
    if (problem := services.clock.problem) is not None:
        raise unavailable(problem)
    if services.publisher is not None and services.publisher.not_ready is not None:
        raise unavailable("the stream is unavailable")
    return {"status": "ready"}


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Get the metrics for Prometheus",
    openapi_extra=needs("read", NOTHING),
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(services: WithServices) -> Response:
    """Counters and gauges for Prometheus."""
    return Response(generate_latest(services.registry), media_type=CONTENT_TYPE_LATEST)
