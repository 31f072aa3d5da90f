"""GET /v1/live/...: the latest state of each device, read from the live tables only."""

from operator import itemgetter
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Path
from starlette.responses import Response

from api.database import Pool, connection
from api.models import page_model, state_model
from api.negotiation import CSV_RESPONSES, AskedMediaType, MediaType
from api.paging import Cursor, Limit, decode_device, encode_cursor
from api.problems import Problem
from api.routing import named, needs, only_seen
from api.rows import COLUMNS, csv_header, page_json, row_json
from api.services import WithServices, WithSight
from api.sight import Ids, Sight
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge.contract import KINDS, Kind
from bridge.reading import DEVICE_ID_PATTERN
from bridge.store.tables import TABLE_OF, Table

router = APIRouter(prefix="/v1/live", tags=["live"])

NEVER_SEEN: dict[int | str, dict[str, Any]] = {404: {"description": "No reading of the device was ever stored"}}


def page_sql(table: Table, sight: Sight) -> str:
    """A page of the states that a key sees. $1 is the device before it, $2 the limit."""
    key = table.device_column
    seen = sight.rows(Ids(table.kind, table.live, key, bound="> $1", limit="$2"), first=3)
    return f"SELECT {COLUMNS[table.kind]} FROM {seen} WHERE {key} > $1 ORDER BY {key} LIMIT $2"  # noqa: S608


def _one_sql(table: Table) -> str:
    return f"SELECT {COLUMNS[table.kind]} FROM {table.live} WHERE {table.device_column} = $1"  # noqa: S608


def device_path(kind: Kind) -> Any:
    """The path parameter that names a device of this kind: `{vehicleId}`."""
    return Annotated[str, Path(alias=kind.id_field, pattern=DEVICE_ID_PATTERN, examples=[kind.example_id])]


def _add_routes(kind: Kind) -> None:
    table = TABLE_OF[kind]
    one_sql = _one_sql(table)

    async def live_devices(
        services: WithServices, sight: WithSight, form: AskedMediaType, cursor: Cursor = None, limit: Limit = 100
    ) -> Response:
        return await _list(services.pool, sight, form, table, cursor, limit)

    async def live_device(services: WithServices, device: device_path(kind)) -> Response:  # type: ignore[valid-type]
        return await _one(services.pool, table, one_sql, device)

    router.add_api_route(
        f"/{kind.plural}",
        live_devices,
        operation_id=f"listLive{kind.plural.capitalize()}",
        openapi_extra=needs("read", only_seen()),
        summary=f"List the latest states of {kind.plural}",
        response_model=page_model(kind),
        responses=CSV_RESPONSES,
        description=f"The latest state of every {kind.name}, by {kind.name} id: a page as JSON, or with "
        "`Accept: text/csv` the whole list, independent of `limit`.",
    )
    router.add_api_route(
        f"/{kind.plural}/{{{kind.id_field}}}",
        live_device,
        operation_id=f"getLive{kind.name.capitalize()}",
        openapi_extra=needs("read", named(**{kind.id_field: kind})),
        summary=f"Get the latest state of a {kind.name}",
        response_model=state_model(kind),
        responses=NEVER_SEEN,
        description=f"The latest state of one {kind.name}: the last known value of each measure.",
    )


for _kind in KINDS:
    _add_routes(_kind)


async def _list(pool: Pool, sight: Sight, form: MediaType, table: Table, cursor: str | None, limit: int) -> Response:
    sql, arguments = page_sql(table, sight), sight.arguments

    async def page(after: str | None, size: int) -> Page[asyncpg.Record, str]:
        async with connection(pool) as c:
            rows = await c.fetch(sql, after or "", size + 1, *arguments)
        return first_rows(rows, size, itemgetter(table.device_column))

    start = decode_device(cursor)
    if form == "text/csv":
        name = f"live-{table.kind.plural}"
        return await csv_stream(name, csv_header(table), tuple, lambda after: page(after, CSV_PAGE), start)
    rows, last = await page(start, limit)
    following = None if last is None else encode_cursor(last)
    return Response(page_json(rows, following), headers={"Vary": "Accept"}, media_type=form)


async def _one(pool: Pool, table: Table, sql: str, device: str) -> Response:
    async with connection(pool) as c:
        row = await c.fetchrow(sql, device)
    if row is None:
        raise never_seen(table.kind, device)
    return Response(row_json(row), media_type="application/json")


def never_seen(kind: Kind, device: str) -> Problem:
    """404: no reading of the device was ever stored."""
    return Problem(404, f"no reading of {kind.name} {device} was ever stored")
