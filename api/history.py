"""GET /v1/history/...: the readings of a period as they were stored, in the order of device time."""

from datetime import timedelta
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.database import connection
from api.live import NEVER_SEEN, device_path, never_seen
from api.models import page_model
from api.paging import Cursor, decode_time, encode_cursor, next_link
from api.period import AskedPeriod, Period
from api.problems import Problem
from api.routing import needs
from api.rows import COLUMNS, page_csv, page_json
from api.services import Services, WithServices
from bridge.contract import KINDS, Kind
from bridge.store.tables import TABLE_OF, Table

router = APIRouter(prefix="/v1/history", tags=["history"])

HistoryLimit = Annotated[int, Query(ge=1, le=10_000, description="Readings per page.")]
_TICK = timedelta(microseconds=1)
_RESPONSES: dict[int | str, dict[str, Any]] = NEVER_SEEN | {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
    406: {"description": "Neither JSON nor CSV is accepted"},
}


def page_sql(table: Table, period: Period) -> str:
    """A page of the period, read from the key in its order. $1 is the device, $2 and $3 the bounds, $4 the limit."""
    return (
        f"SELECT {COLUMNS[table.kind]} FROM {table.history} WHERE {table.device_column} = $1 "  # noqa: S608
        f"AND ts >= $2 AND ts < $3 AND {period.days_sql()} ORDER BY ts LIMIT $4"
    )


def _seen_sql(kind: Kind) -> str:
    return f"SELECT EXISTS (SELECT FROM {kind.live_table} WHERE {kind.id_column} = $1)"  # noqa: S608


def _add_route(kind: Kind) -> None:
    async def device_history(
        request: Request,
        services: WithServices,
        period: AskedPeriod,
        device: device_path(kind),  # type: ignore[valid-type]
        cursor: Cursor = None,
        limit: HistoryLimit = 1_000,
    ) -> Response:
        return await _history(request, services, TABLE_OF[kind], device, period, cursor, limit)

    router.add_api_route(
        f"/{kind.plural}/{{{kind.id_field}}}",
        device_history,
        operation_id=f"get{kind.name.capitalize()}History",
        openapi_extra=needs("read"),
        summary=f"Get the readings of a {kind.name}",
        response_model=page_model(kind),
        responses=_RESPONSES,
        description=f"The readings of a {kind.name}, as JSON or CSV according to `Accept`.",
    )


for _kind in KINDS:
    _add_route(_kind)


async def _history(
    request: Request, services: Services, table: Table, device: str, period: Period, cursor: str | None, limit: int
) -> Response:
    form = negotiate(request.headers.get("accept", "*/*"))
    rows = await _rows(services, table, device, period, cursor, limit + 1)
    page = rows[:limit]
    following = encode_cursor(page[-1]["ts"]) if len(rows) > limit else None
    # The default end is now; the next page must have the end of the first.
    fixed = {"from": period.start.isoformat(), "to": period.end.isoformat()}
    links = next_link(request.query_params, following, fixed)
    body = page_csv(table, page) if form == "text/csv" else page_json(page, following)
    return Response(body, headers=links | {"Vary": "Accept"}, media_type=form)


async def _rows(
    services: Services, table: Table, device: str, period: Period, cursor: str | None, limit: int
) -> list[asyncpg.Record]:
    """The next rows of the period. Raises 404 when no reading of the device was ever stored."""
    start = period.start if cursor is None else max(period.start, decode_time(cursor) + _TICK)
    async with connection(services.pool) as c:
        rows = await c.fetch(page_sql(table, period), device, start, period.end, limit)
        if not rows and not await c.fetchval(_seen_sql(table.kind), device):
            raise never_seen(table.kind, device)
    return rows


def negotiate(accept: str) -> Literal["application/json", "text/csv"]:
    """The media type that the client prefers, JSON by default. Raises 406 (RFC 9110, section 12.5.1)."""
    best: tuple[float, Literal["application/json", "text/csv"]] = (0.0, "application/json")
    for form in ("application/json", "text/csv"):
        quality = _quality(accept, form)
        if quality > best[0]:
            best = (quality, form)
    if best[0] <= 0:
        raise Problem(406, "the response is available as application/json and text/csv")
    return best[1]


def _quality(accept: str, form: str) -> float:
    """The quality value of a media type: that of the most specific matching range."""
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
