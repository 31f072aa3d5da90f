"""GET /v1/live/...: the latest state of each device, from the live tables, with its age.

A client that polls can ask for changes only (`changedSince`, see `api.changes`), or whether there are any (`ETag`).
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from api.as_of import WithReading
from api.changes import (
    AsOf,
    changed_sql,
    keyed_register_sql,
    never_reported_silent_from_sql,
    register_sql,
    silent_from_sql,
)
from api.database import Connection, connection
from api.models import live_model, live_page_model
from api.negotiation import CSV_RESPONSES, AskedMediaType, MediaType
from api.paging import Cursor, Limit, decode_device, encode_cursor
from api.patterns import TEXT_PATTERN
from api.problems import Problem, invalid
from api.replicas.reading import Reading
from api.routing import SITE, named, needs, only_seen
from api.rows import COLUMNS, LIVE_COLUMNS, columns, csv_header, page_json, row_json
from api.services import Services, WithServices, WithSight
from api.sight import Ids, Sight
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge.contract import KINDS, Kind
from bridge.reading import DEVICE_ID_PATTERN
from bridge.store.tables import TABLE_OF, Table

router = APIRouter(prefix="/v1/live", tags=["live"])

NEVER_SEEN: dict[int | str, dict[str, Any]] = {404: {"description": "No reading of the device was ever stored"}}
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Unchanged since the response with this `ETag`"}}
_TOO_OLD: dict[int | str, dict[str, Any]] = {410: {"description": "`changedSince` is too old: get the whole list"}}

ChangedSince = Annotated[
    str | None,
    Query(
        alias="changedSince",
        max_length=100,
        description="`changedSince` of an earlier response: only devices that have reported or become silent since.",
    ),
]
NeverReported = Annotated[
    bool,
    Query(
        alias="neverReported",
        description="Also list the declared devices of which no reading was ever stored; their times are null.",
    ),
]
AtSite = Annotated[
    str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Devices that are declared at this site.")
]
KnownTags = Annotated[str | None, Header(alias="If-None-Match", description="`ETag` of an earlier response.")]


def _select(table: Table, source: str, default_interval_s: str) -> str:
    """`source` is the live table, or what a key sees of it, under the table's name, with the register joined."""
    silent_from = silent_from_sql(table.live, "declared", default_interval_s)
    return (
        f"SELECT {COLUMNS[table.kind]}, {silent_from} < now() AS silent, "  # noqa: S608
        f"extract(epoch FROM now() - {table.live}.ts)::float8 AS age_seconds "
        f"FROM {source}"
    )


def page_sql(table: Table, sight: Sight) -> str:
    """A page of the states that a key sees. $1 is the device before it, $2 the limit."""
    key = table.device_column
    seen = sight.rows(Ids(table.kind, table.live, key, bound="> $1", limit="$2"), first=4)
    source = f"{seen} {keyed_register_sql(table, table.live, 'declared')}"
    return f"{_select(table, source, '$3')} WHERE {key} > $1 ORDER BY {key} LIMIT $2"


def _changed_page_sql(table: Table, sight: Sight) -> str:
    key, silent_from = table.device_column, silent_from_sql(table.live, "declared", "$3")
    seen = sight.condition(f"'{table.kind.name}'", f"{table.live}.{key}", first=6)
    changed = f"({changed_sql(table.live, '$4')} OR {silent_from} BETWEEN $5 AND now())"
    source = f"{table.live} {register_sql(table, table.live, 'declared')}"
    return f"{_select(table, source, '$3')} WHERE {key} > $1 AND {changed} AND {seen} ORDER BY {key} LIMIT $2"


def _one_sql(table: Table) -> str:
    source = f"{table.live} {keyed_register_sql(table, table.live, 'declared')}"
    return f"{_select(table, source, '$2')} WHERE {table.device_column} = $1"


def _never_reported_page_sql(table: Table, sight: Sight) -> str:
    """As `page_sql`, of the declared devices without a live row: they have an id, and may be silent."""
    key, kind = table.device_column, f"'{table.kind.name}'"
    known = {key: f"declared.id AS {key}", "extra": "NULL::jsonb AS extra"}
    known |= {column: f"NULL::timestamptz AS {column}" for column in ("ts", "received_at")}
    cells = ", ".join(known.get(column, f"NULL::float8 AS {column}") for column in columns(table))
    silent_from = never_reported_silent_from_sql("declared", "$3")
    seen = sight.condition(kind, "declared.id", first=4)
    return (
        f"SELECT {cells}, {silent_from} < now() AS silent, NULL::float8 AS age_seconds "  # noqa: S608
        f"FROM device AS declared WHERE kind = {kind} AND id > $1 AND {seen} "
        f"AND NOT EXISTS (SELECT FROM {table.live} WHERE {key} = declared.id) ORDER BY id LIMIT $2"
    )


def device_path(kind: Kind) -> Any:
    """The path parameter that names a device of this kind: `{vehicleId}`."""
    return Annotated[str, Path(alias=kind.id_field, pattern=DEVICE_ID_PATTERN, examples=[kind.example_id])]


class _Live:
    """The routes of one kind of device."""

    def __init__(self, kind: Kind) -> None:
        self._table = TABLE_OF[kind]
        self._one_sql = _one_sql(self._table)

    async def page(
        self,
        services: Services,
        reading: Reading,
        sight: Sight,
        form: MediaType,
        cursor: str | None,
        limit: int,
        changed_since: str | None,
        known: str | None,
        never_reported: bool,
    ) -> Response:
        if never_reported and changed_since is not None:
            raise invalid("neverReported", "cannot be used with changedSince: these devices have no change")
        since = await self._since(reading, changed_since)

        async def following(after: str | None, size: int) -> Page[asyncpg.Record, str]:
            async with connection(reading) as c:
                others = await self._others(c, services, sight, after, size + 1) if never_reported else []
                rows = await self._rows(c, services, sight, since, after, size + 1)
            if others:
                rows = self._merged(rows, others)[: size + 1]
            return first_rows(rows, size, itemgetter(self._table.device_column))

        start = decode_device(cursor)
        if form == "text/csv":
            name, header = f"live-{self._table.kind.plural}", csv_header(self._table, LIVE_COLUMNS)
            return await csv_stream(name, header, tuple, lambda after: following(after, CSV_PAGE), start)
        as_of = await _as_of(reading)  # before the rows, so that the next changes include what is stored meanwhile
        rows, last = await following(start, limit)
        next_cursor = None if last is None else encode_cursor(last)
        headers = {"Vary": "Accept", "ETag": _etag(rows, next_cursor)}
        if _is_known(headers["ETag"], known):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(page_json(rows, next_cursor, changedSince=as_of.token()), headers=headers, media_type=form)

    async def one(self, services: Services, reading: Reading, device: str, known: str | None) -> Response:
        async with connection(reading) as c:
            row = await c.fetchrow(self._one_sql, device, services.settings.reading_interval_s)
        if row is None:
            raise never_seen(self._table.kind, device)
        headers = {"ETag": _etag([row], None)}
        if _is_known(headers["ETag"], known):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(row_json(row), headers=headers, media_type="application/json")

    async def _since(self, reading: Reading, token: str | None) -> AsOf | None:
        """The state of a `changedSince`. Raises 422 for a text that is none, 410 for one that is too old.

        Raises `ReplicaLost` where a replica has not got so far: the list must not show older states.
        """
        if token is None:
            return None
        since = AsOf.parse(token)
        if since is None:
            raise invalid("changedSince", "is not one of this list")
        now = await _as_of(reading)
        if reading.started is not None and now.is_before(since) and now.oldest_xid != since.oldest_xid:
            raise reading.leave("behind")
        if not since.is_before(now):
            raise Problem(410, "changedSince is too old: get the whole list")
        return since

    async def _rows(
        self, c: Connection, services: Services, sight: Sight, since: AsOf | None, after: str | None, limit: int
    ) -> list[asyncpg.Record]:
        arguments: tuple[str, int, float] = (after or "", limit, services.settings.reading_interval_s)
        if since is None:
            return await c.fetch(page_sql(self._table, sight), *arguments, *sight.arguments)
        sql = _changed_page_sql(self._table, sight)
        return await c.fetch(sql, *arguments, since.xid, since.at, *sight.arguments)

    async def _others(
        self, c: Connection, services: Services, sight: Sight, after: str | None, limit: int
    ) -> list[asyncpg.Record]:
        sql = _never_reported_page_sql(self._table, sight)
        return await c.fetch(sql, after or "", limit, services.settings.reading_interval_s, *sight.arguments)

    def _merged(self, rows: list[asyncpg.Record], others: list[asyncpg.Record]) -> list[asyncpg.Record]:
        """Both lists by id, each device once: it may have reported for the first time in between."""
        id_of = itemgetter(self._table.device_column)
        found = {id_of(row): row for row in (*others, *rows)}
        return [found[id_] for id_ in sorted(found)]


async def _as_of(reading: Reading) -> AsOf:
    """The present state. A replica has the primary's transactions, so it can be compared with one of the primary."""
    async with connection(reading) as c:
        found = await AsOf.read(c)
    return found if reading.started is None else replace(found, server=reading.started)


def _etag(rows: Sequence[asyncpg.Record], next_cursor: str | None) -> str:
    """Weak, because responses that differ in the ages only have the same one."""
    without_age = [tuple(row)[:-1] for row in rows]
    return f'W/"{blake2b(repr((without_age, next_cursor)).encode(), digest_size=12).hexdigest()}"'


def _is_known(etag: str, known: str | None) -> bool:
    """Whether `If-None-Match` has the tag, by weak comparison (RFC 9110, section 13.1.2)."""
    given = {tag.strip().removeprefix("W/") for tag in (known or "").split(",")}
    return "*" in given or etag.removeprefix("W/") in given


def _add_routes(kind: Kind) -> None:
    live = _Live(kind)

    async def live_devices(
        services: WithServices,
        reading: WithReading,
        sight: WithSight,
        form: AskedMediaType,
        cursor: Cursor = None,
        limit: Limit = 100,
        changed_since: ChangedSince = None,
        known: KnownTags = None,
        never_reported: NeverReported = False,
        site: AtSite = None,
    ) -> Response:
        if site is not None:  # of which the key sees everything, or the request was refused
            sight = Sight(sites=(site,))
        return await live.page(services, reading, sight, form, cursor, limit, changed_since, known, never_reported)

    async def live_device(
        services: WithServices,
        reading: WithReading,
        device: device_path(kind),  # type: ignore[valid-type]
        known: KnownTags = None,
    ) -> Response:
        return await live.one(services, reading, device, known)

    router.add_api_route(
        f"/{kind.plural}",
        live_devices,
        operation_id=f"listLive{kind.plural.capitalize()}",
        openapi_extra=needs("read", only_seen(site=SITE)),
        summary=f"List the latest states of {kind.plural}",
        response_model=live_page_model(kind),
        responses=CSV_RESPONSES | _UNCHANGED | _TOO_OLD,
        description=f"The latest state of every {kind.name}, by {kind.name} id: a page as JSON, or with "
        "`Accept: text/csv` the whole list, independent of `limit`.",
    )
    router.add_api_route(
        f"/{kind.plural}/{{{kind.id_field}}}",
        live_device,
        operation_id=f"getLive{kind.name.capitalize()}",
        openapi_extra=needs("read", named(**{kind.id_field: kind})),
        summary=f"Get the latest state of a {kind.name}",
        response_model=live_model(kind),
        responses=NEVER_SEEN | _UNCHANGED,
        description=f"The latest state of one {kind.name}: the last known value of each measure.",
    )


for _kind in KINDS:
    _add_routes(_kind)


def never_seen(kind: Kind, device: str) -> Problem:
    """404: no reading of the device was ever stored."""
    return Problem(404, f"no reading of {kind.name} {device} was ever stored")
