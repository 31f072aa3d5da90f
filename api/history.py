"""GET /v1/history/...: the readings of a period as they were stored, in the order of device time."""

from datetime import timedelta
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.database import connection
from api.live import NEVER_SEEN, never_seen
from api.models import MeterPage, VehiclePage
from api.paging import Cursor, decode_time, encode_cursor, next_link
from api.period import AskedPeriod, DeviceId, Period
from api.problems import Problem
from api.rows import METER_COLUMNS, VEHICLE_COLUMNS, page_csv, page_json
from api.services import Services, WithServices
from bridge.tables import METER, VEHICLE, Table

router = APIRouter(prefix="/v1/history", tags=["history"])

HistoryLimit = Annotated[int, Query(ge=1, le=10_000, description="Readings a page.")]
_TICK = timedelta(microseconds=1)
_RESPONSES: dict[int | str, dict[str, Any]] = NEVER_SEEN | {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
    406: {"description": "Neither JSON nor CSV is accepted"},
}
_COLUMNS = {"vehicle": VEHICLE_COLUMNS, "meter": METER_COLUMNS}


def page_sql(table: Table, period: Period) -> str:
    """A page of the period, from the key and in its order. $1 is the device, $2 and $3 the bounds, $4 how many."""
    return (
        f"SELECT {_COLUMNS[table.kind]} FROM {table.history} WHERE {table.device_column} = $1 "  # noqa: S608
        f"AND ts >= $2 AND ts < $3 AND {period.days_sql()} ORDER BY ts LIMIT $4"
    )


_SEEN = {t.kind: f"SELECT EXISTS (SELECT FROM {t.live} WHERE {t.device_column} = $1)" for t in (VEHICLE, METER)}  # noqa: S608


@router.get("/vehicles/{vehicleId}", response_model=VehiclePage, responses=_RESPONSES)
async def vehicle_history(
    request: Request,
    services: WithServices,
    period: AskedPeriod,
    vehicleId: DeviceId,  # noqa: N803
    cursor: Cursor = None,
    limit: HistoryLimit = 1_000,
) -> Response:
    """A vehicle's readings, as JSON or CSV by `Accept`."""
    return await _history(request, services, VEHICLE, vehicleId, period, cursor, limit)


@router.get("/meters/{meterId}", response_model=MeterPage, responses=_RESPONSES)
async def meter_history(
    request: Request,
    services: WithServices,
    period: AskedPeriod,
    meterId: DeviceId,  # noqa: N803
    cursor: Cursor = None,
    limit: HistoryLimit = 1_000,
) -> Response:
    """A meter's readings, as JSON or CSV by `Accept`."""
    return await _history(request, services, METER, meterId, period, cursor, limit)


async def _history(
    request: Request, services: Services, table: Table, device: str, period: Period, cursor: str | None, limit: int
) -> Response:
    form = negotiate(request.headers.get("accept", "*/*"))
    rows = await _rows(services, table, device, period, cursor, limit + 1)
    page = rows[:limit]
    following = encode_cursor(page[-1]["ts"]) if len(rows) > limit else None
    # The default end is now: the next page keeps the end of the first.
    url = request.url.include_query_params(**{"from": period.start.isoformat(), "to": period.end.isoformat()})
    body = page_csv(table, page) if form == "text/csv" else page_json(page, following)
    return Response(body, headers=next_link(url, following) | {"Vary": "Accept"}, media_type=form)


async def _rows(
    services: Services, table: Table, device: str, period: Period, cursor: str | None, limit: int
) -> list[asyncpg.Record]:
    """The next rows of the period. Raises 404 when the device was never seen at all."""
    start = period.start if cursor is None else max(period.start, decode_time(cursor) + _TICK)
    async with connection(services.pool) as c:
        rows = await c.fetch(page_sql(table, period), device, start, period.end, limit)
        if not rows and not await c.fetchval(_SEEN[table.kind], device):
            raise never_seen(table, device)
    return rows


def negotiate(accept: str) -> Literal["application/json", "text/csv"]:
    """The form that the caller likes best, JSON when he does not care. Raises 406 (RFC 9110, section 12.5.1)."""
    best: tuple[float, Literal["application/json", "text/csv"]] = (0.0, "application/json")
    for form in ("application/json", "text/csv"):
        quality = _quality(accept, form)
        if quality > best[0]:
            best = (quality, form)
    if best[0] <= 0:
        raise Problem(406, "the answer is served as application/json and text/csv")
    return best[1]


def _quality(accept: str, form: str) -> float:
    """How much the caller likes a form: the most specific range that matches it decides."""
    ranges = (form, form.split("/")[0] + "/*", "*/*")
    found = (-1, 0.0)
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if name in ranges:
            found = max(found, (2 - ranges.index(name), _q(parameters)))
    return found[1]


def _q(parameters: list[str]) -> float:
    try:
        return next((float(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    except ValueError:
        return 0.0
