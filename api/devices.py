"""The device register: what an operator declares about a device; the same routes for each kind.

A declaration is optional. Ingest, live state, history and analytics work without one.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from api.bulk import BulkRoute, Placed, bulk_rows, list_cell, number_cell, refuse_repeated, request_body
from api.csv_format import columns
from api.database import Connection, connection
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, Limit, decode_device, encode_cursor, next_link
from api.patterns import TEXT_PATTERN
from api.problems import Problem, invalid
from api.register_models import Device, DeviceBody, DevicePage, DeviceRow, Imported
from api.routing import SITE, named, needs, only_seen
from api.services import Caller, WithServices, WithSight
from api.sight import Ids, Sight
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge import audit
from bridge.contract import KINDS, Kind
from bridge.reading import DEVICE_ID_PATTERN

# Writers of the register are serialized, because a change copies the fields that it omits from the existing row.
_LOCK = "SELECT pg_advisory_xact_lock(7380397150)"
_COLUMNS = "id, name, site, interval_s, rated_kw, time_zone, tags"
_ONE = f"SELECT {_COLUMNS} FROM device WHERE kind = $1 AND id = $2"  # noqa: S608
_DELETE = f"DELETE FROM device WHERE kind = $1 AND id = $2 RETURNING {_COLUMNS}"  # noqa: S608
# $2 is an array of JSON objects. An absent member leaves the value unchanged, null clears it. A row that would not
# change is not written.
_WRITE = """
WITH given AS (
    SELECT r, r ->> 'id' AS id FROM jsonb_array_elements($2::jsonb) AS r
), merged AS (
    SELECT g.id,
           CASE WHEN r ? 'name' THEN r ->> 'name' ELSE d.name END AS name,
           CASE WHEN r ? 'site' THEN r ->> 'site' ELSE d.site END AS site,
           CASE WHEN r ? 'intervalS' THEN (r ->> 'intervalS')::float8 ELSE d.interval_s END AS interval_s,
           CASE WHEN r ? 'ratedKw' THEN (r ->> 'ratedKw')::float8 ELSE d.rated_kw END AS rated_kw,
           CASE WHEN r ? 'timeZone' THEN r ->> 'timeZone' ELSE d.time_zone END AS time_zone,
           CASE WHEN r ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(r -> 'tags'))
                ELSE coalesce(d.tags, '{}') END AS tags
    FROM given g LEFT JOIN device d ON d.kind = $1 AND d.id = g.id
)
INSERT INTO device AS d (kind, id, name, site, interval_s, rated_kw, time_zone, tags)
SELECT $1, id, name, site, interval_s, rated_kw, time_zone, tags FROM merged
ON CONFLICT (kind, id) DO UPDATE
SET name = excluded.name, site = excluded.site, interval_s = excluded.interval_s, rated_kw = excluded.rated_kw,
    time_zone = excluded.time_zone, tags = excluded.tags, changed_at = now()
WHERE (d.name, d.site, d.interval_s, d.rated_kw, d.time_zone, d.tags) IS DISTINCT FROM
      (excluded.name, excluded.site, excluded.interval_s, excluded.rated_kw, excluded.time_zone, excluded.tags)
RETURNING (xmax = 0) AS created
"""
_FILTERS = {
    "site": "site = {}",
    "tag": "{} = ANY(tags)",
    "q": "(strpos(lower(id), lower({0})) > 0 OR strpos(lower(name), lower({0})) > 0)",
}
_CELLS = {"intervalS": number_cell, "ratedKw": number_cell, "tags": list_cell}
_EXAMPLE = "id,name,site,intervalS,ratedKw,timeZone,tags\r\nEV_002,Van 2,Depot North,60,150,Europe/Berlin,van;north\r\n"

DeclaredId = Annotated[str, Path(alias="id", pattern=DEVICE_ID_PATTERN, examples=["EV_002"])]
Site = Annotated[str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Devices of this site.")]
Tag = Annotated[str | None, Query(max_length=100, pattern=TEXT_PATTERN, description="Devices with this tag.")]
Text = Annotated[
    str | None,
    Query(max_length=200, pattern=TEXT_PATTERN, description="Part of the id or name, case-insensitive."),
]

_NOT_DECLARED: dict[int | str, dict[str, Any]] = {404: {"description": "The device is not declared"}}
_BODY: dict[int | str, dict[str, Any]] = {
    400: {"description": "Not JSON"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "The body is too large"},
    415: {"description": "Unsupported Content-Type or Content-Encoding"},
}
_CREATED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Replaced, or unchanged"},
    201: {"description": "Created", "model": Device},
}


class _Register:
    """The routes of one kind of device."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    async def list_declared(
        self,
        request: Request,
        services: WithServices,
        sight: WithSight,
        form: AskedMediaType,
        site: Site = None,
        tag: Tag = None,
        q: Text = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """Declarations by id: a page as JSON, or with `Accept: text/csv` the whole list, independent of `limit`."""
        filters = {"site": site, "tag": tag, "q": q}

        async def page(after: str | None, size: int) -> Page[asyncpg.Record, str]:
            async with connection(services.pool) as c:
                rows = await _page(c, self._kind, sight, filters, after or "", size + 1)
            return first_rows(rows, size, itemgetter("id"))

        start = decode_device(cursor)
        if form == "text/csv":
            name = f"declared-{self._kind.plural}"
            return await csv_stream(name, columns(Device), tuple, lambda after: page(after, CSV_PAGE), start)
        rows, last = await page(start, limit)
        following = None if last is None else encode_cursor(last)
        found = DevicePage(items=[_device(row) for row in rows], next_cursor=following)
        headers = next_link(request.query_params, following) | {"Vary": "Accept"}
        return JSONResponse(found.model_dump(mode="json"), headers=headers)

    async def get(self, services: WithServices, device: DeclaredId) -> Device:
        """The declaration of a device."""
        async with connection(services.pool) as c:
            row = await c.fetchrow(_ONE, self._kind.name, device)
        if row is None:
            raise self._not_declared(device)
        return _device(row)

    async def put(self, services: WithServices, caller: Caller, device: DeclaredId, body: DeviceBody) -> Response:
        """Replace the whole declaration of a device: absent fields are cleared. 201 if it is new."""
        declared = _named(body.model_dump(), device)
        async with connection(services.pool) as c, c.transaction():
            await c.execute(_LOCK)
            before = await c.fetchrow(_ONE, self._kind.name, device)
            row = await self._change(c, caller.id, "device.put", before, declared)
        status = HTTPStatus.CREATED if before is None else HTTPStatus.OK
        return JSONResponse(_device(row).model_dump(mode="json"), status)

    async def patch(self, services: WithServices, caller: Caller, device: DeclaredId, body: DeviceBody) -> Device:
        """Change a declaration (RFC 7396): absent fields are unchanged, null clears a field."""
        change = _named(body.model_dump(exclude_unset=True), device)
        async with connection(services.pool) as c, c.transaction():
            await c.execute(_LOCK)
            before = await c.fetchrow(_ONE, self._kind.name, device)
            if before is None:
                raise self._not_declared(device)
            return _device(await self._change(c, caller.id, "device.patch", before, change))

    async def delete(self, services: WithServices, caller: Caller, device: DeclaredId) -> None:
        """Remove a declaration. The device's readings are kept, and it may continue to send."""
        async with connection(services.pool) as c, c.transaction():
            await c.execute(_LOCK)
            row = await c.fetchrow(_DELETE, self._kind.name, device)
            if row is None:
                raise self._not_declared(device)
            subject = f"{self._kind.name}:{device}"
            await audit.record(
                c, f"key:{caller.id}", "device.delete", subject, before=_device(row).model_dump(mode="json")
            )

    async def import_all(self, request: Request, services: WithServices, caller: Caller) -> Imported:
        """Declare many devices, all or none. Absent fields and columns are unchanged, null and empty cells clear a
        field. Up to 100,000 rows and 8 MiB, plain or gzip."""
        rows = await bulk_rows(request, DeviceRow, _CELLS)
        refuse_repeated(rows, lambda row: row.id, "id")
        async with connection(services.pool) as c, c.transaction():
            await c.execute(_LOCK)
            result = _counted(rows, await _write(c, self._kind, [_stored(placed.row) for placed in rows]))
            subject = self._kind.plural
            await audit.record(c, f"key:{caller.id}", "device.import", subject, **result.model_dump())
        return result

    async def _change(
        self,
        c: Connection,
        key: str,
        action: audit.Action,
        before: asyncpg.Record | None,
        declared: Mapping[str, Any],
    ) -> asyncpg.Record:
        """Write a declaration and, if it changes anything, the audit row; return the resulting row."""
        written = await _write(c, self._kind, [declared])
        row = await c.fetchrow(_ONE, self._kind.name, declared["id"])
        assert row is not None
        if written:
            old = None if before is None else _device(before).model_dump(mode="json")
            new = _device(row).model_dump(mode="json")
            await audit.record(c, f"key:{key}", action, f"{self._kind.name}:{row['id']}", before=old, after=new)
        return row

    def _not_declared(self, device: str) -> Problem:
        return Problem(404, f"{self._kind.name} {device} is not declared")


def _add_routes(kind: Kind) -> None:
    """The routes of a kind, with operation ids derived from its name."""
    routes, path = _Register(kind), f"/{kind.plural}"
    one, many = f"{kind.name.capitalize()}", f"{kind.plural.capitalize()}"
    router.add_api_route(
        path,
        routes.list_declared,
        response_model=DevicePage,
        responses=CSV_RESPONSES,
        operation_id=f"listDeclared{many}",
        openapi_extra=needs("read", only_seen(site=SITE)),
        summary=f"List declared {kind.plural}",
    )
    bulk.add_api_route(
        path,
        routes.import_all,
        methods=["POST"],
        responses=_BODY | {422: {"description": "Invalid rows; nothing is written"}},
        operation_id=f"importDeclared{many}",
        summary=f"Declare many {kind.plural}",
        openapi_extra=needs("assign") | request_body(DeviceRow, _EXAMPLE),
    )
    router.add_api_route(
        f"{path}/{{id}}",
        routes.get,
        responses=_NOT_DECLARED,
        operation_id=f"getDeclared{one}",
        openapi_extra=needs("read", named(id=kind)),
        summary=f"Get a declared {kind.name}",
    )
    router.add_api_route(
        f"{path}/{{id}}",
        routes.put,
        methods=["PUT"],
        response_model=Device,
        responses=_BODY | _CREATED,
        operation_id=f"putDeclared{one}",
        openapi_extra=needs("assign"),
        summary=f"Declare a {kind.name}",
    )
    router.add_api_route(
        f"{path}/{{id}}",
        routes.patch,
        methods=["PATCH"],
        responses=_BODY | _NOT_DECLARED,
        operation_id=f"patchDeclared{one}",
        openapi_extra=needs("assign"),
        summary=f"Change a declared {kind.name}",
    )
    router.add_api_route(
        f"{path}/{{id}}",
        routes.delete,
        methods=["DELETE"],
        status_code=HTTPStatus.NO_CONTENT,
        responses=_NOT_DECLARED,
        operation_id=f"deleteDeclared{one}",
        openapi_extra=needs("assign"),
        summary=f"Remove a declared {kind.name}",
    )


router = APIRouter(prefix="/v1/devices", tags=["devices"])
bulk = APIRouter(prefix="/v1/devices", tags=["devices"], route_class=BulkRoute)
for _kind in KINDS:
    _add_routes(_kind)


async def _page(
    c: Connection, kind: Kind, sight: Sight, filters: Mapping[str, str | None], after: str, limit: int
) -> list[asyncpg.Record]:
    """The rows after an id that pass the filters and that a key sees, from the key and in its order."""
    given = {name: value for name, value in filters.items() if value is not None}
    sql = page_sql(kind, sight, list(given))
    return await c.fetch(sql, kind.name, after, limit, *given.values(), *sight.arguments)


def page_sql(kind: Kind, sight: Sight, filters: Sequence[str]) -> str:
    """A page of the declarations that a key sees. $1 is the kind, $2 the id before it, $3 the limit, then the filters
    and the arguments of the sight."""
    conditions = ["kind = $1", *(_FILTERS[name].format(f"${n}") for n, name in enumerate(filters, start=4))]
    where = " AND ".join(conditions)
    seen = sight.rows(Ids(kind, "device", "id", bound="> $2", where=where, limit="$3"), first=4 + len(filters))
    return f"SELECT {_COLUMNS} FROM {seen} WHERE id > $2 AND {where} ORDER BY id LIMIT $3"  # noqa: S608


async def _write(c: Connection, kind: Kind, declared: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Insert or change the rows; return for each written row whether it is new."""
    return [row["created"] for row in await c.fetch(_WRITE, kind.name, json.dumps(declared))]


def _named(declared: dict[str, Any], device: str) -> dict[str, Any]:
    """The declaration of `device` as stored. Raises 422 when the body has the id of another device."""
    if declared.get("id") not in (None, device):
        raise invalid("id", f"is not {device}, the id in the path")
    return _with_tags(declared | {"id": device})


def _stored(row: DeviceRow) -> dict[str, Any]:
    return _with_tags(row.model_dump(exclude_unset=True))


def _with_tags(declared: dict[str, Any]) -> dict[str, Any]:
    """No tags are an empty list."""
    return declared | {"tags": declared["tags"] or []} if "tags" in declared else declared


def _counted(rows: Sequence[Placed[DeviceRow]], written: Sequence[bool]) -> Imported:
    created = sum(written)
    return Imported(rows=len(rows), created=created, changed=len(written) - created, unchanged=len(rows) - len(written))


def _device(row: asyncpg.Record) -> Device:
    return Device.model_validate(dict(row))
