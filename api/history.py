"""GET /v1/history/...: the readings of a period as they were stored, in the order of device time."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.as_of import WithReading
from api.database import connection
from api.live import NEVER_SEEN, device_path, never_seen
from api.models import page_model
from api.negotiation import CSV_RESPONSES, AskedMediaType, MediaType
from api.paging import Cursor, decode_time, encode_cursor, next_link
from api.period import AskedPeriod, Period
from api.replicas.reading import Reading
from api.routing import named, needs
from api.rows import COLUMNS, csv_header, page_json
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge.contract import KINDS, Kind
from bridge.store.tables import TABLE_OF, Table

router = APIRouter(prefix="/v1/history", tags=["history"])

HistoryLimit = Annotated[
    int, Query(ge=1, le=10_000, description="Readings per page; fewer where their unknown fields are large.")
]
_TICK = timedelta(microseconds=1)
_PIECE = 500
"""Readings that are read at a time."""
_MOST_IN_THE_LOOP = 1_000
"""Readings that become JSON in the event loop, in some ten milliseconds; others wait for as long."""
_PAGE_BYTES = 4 * 1024 * 1024
"""Of unknown fields (`extra`) on a page; it ends with the piece in which they are more."""


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
        reading: WithReading,
        form: AskedMediaType,
        period: AskedPeriod,
        device: device_path(kind),  # type: ignore[valid-type]
        cursor: Cursor = None,
        limit: HistoryLimit = 1_000,
    ) -> Response:
        return await _history(request, reading, form, TABLE_OF[kind], device, period, cursor, limit)

    router.add_api_route(
        f"/{kind.plural}/{{{kind.id_field}}}",
        device_history,
        operation_id=f"get{kind.name.capitalize()}History",
        openapi_extra=needs("read", named(**{kind.id_field: kind})),
        summary=f"Get the readings of a {kind.name}",
        response_model=page_model(kind),
        responses=NEVER_SEEN | CSV_RESPONSES,
        description=f"The readings of a {kind.name}: a page as JSON, or with `Accept: text/csv` all of the period, "
        "independent of `limit`.",
    )


for _kind in KINDS:
    _add_route(_kind)


async def _history(
    request: Request,
    reading: Reading,
    form: MediaType,
    table: Table,
    device: str,
    period: Period,
    cursor: str | None,
    limit: int,
) -> Response:
    async def page(after: datetime | None, size: int) -> Page[asyncpg.Record, datetime]:
        rows, is_cut = await _rows(reading, table, device, period, after, size + 1)
        return (rows, rows[-1]["ts"]) if is_cut else first_rows(rows, size, itemgetter("ts"))

    start = None if cursor is None else decode_time(cursor)
    if form == "text/csv":
        name = f"history-{table.kind.name}-{device}"
        return await csv_stream(name, csv_header(table), tuple, lambda after: page(after, CSV_PAGE), start)
    rows, last = await page(start, limit)
    following = None if last is None else encode_cursor(last)
    # The default end is now; the next page must have the end of the first.
    fixed = {"from": period.start.isoformat(), "to": period.end.isoformat()}
    links = next_link(request.query_params, following, fixed)
    return Response(await _text(rows, following), headers=links | {"Vary": "Accept"}, media_type=form)


async def _text(rows: Sequence[asyncpg.Record], following: str | None) -> str:
    if len(rows) <= _MOST_IN_THE_LOOP:
        return page_json(rows, following)
    return await asyncio.to_thread(page_json, rows, following)


async def _rows(
    reading: Reading, table: Table, device: str, period: Period, after: datetime | None, limit: int
) -> tuple[list[asyncpg.Record], bool]:
    """The rows of the period after a time, and whether they are fewer than there are because they are large.

    They are read in pieces until their unknown fields are larger than a page may be. Raises 404 when no reading of the
    device was ever stored.
    """
    start, left = period.start if after is None else max(period.start, after + _TICK), _PAGE_BYTES
    rows: list[asyncpg.Record] = []
    async with connection(reading) as c:
        while len(rows) < limit:
            size = min(_PIECE, limit - len(rows))
            piece = await c.fetch(page_sql(table, period), device, start, period.end, size)
            rows += piece
            left -= sum(len(row["extra"]) for row in piece if row["extra"] is not None)
            if len(piece) < size:
                break
            if left < 0 and len(rows) < limit:
                return rows, True
            start = piece[-1]["ts"] + _TICK
        if not rows and not await c.fetchval(_seen_sql(table.kind), device):
            raise never_seen(table.kind, device)
    return rows, False
