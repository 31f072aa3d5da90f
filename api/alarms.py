"""Alarms: the open ones and their history, and their acknowledgement by a person."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from api.alarm_models import BODY_RESPONSES, Acknowledgement, Alarm, AlarmPage, State
from api.csv_format import columns
from api.database import connection
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, Limit, decode_number, encode_cursor, next_link
from api.patterns import RULE_PATTERN, TEXT_PATTERN
from api.period import Instant
from api.problems import Problem, invalid
from api.routing import SITE, needs, only_seen
from api.services import Caller, WithServices, WithSight
from api.sight import Sight
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge import audit
from bridge.alarms.measures import Severity
from bridge.reading import format_timestamp

router = APIRouter(prefix="/v1/alarms", tags=["alarms"])

_COLUMNS = ", ".join(Alarm.model_fields)
_ONE = f"SELECT {_COLUMNS} FROM alarm WHERE id = $1"  # noqa: S608
# The first acknowledgement counts, also when two come at once.
_ACKNOWLEDGE = (
    "UPDATE alarm SET acknowledged_at = now(), acknowledged_by = $2, note = $3 "  # noqa: S608
    f"WHERE id = $1 AND acknowledged_at IS NULL RETURNING {_COLUMNS}"
)
_STATES: dict[State, str] = {"open": "cleared_at IS NULL", "cleared": "cleared_at IS NOT NULL", "all": "true"}
_FILTERS = {
    "site": "site = {}",
    "device": "device = {}",
    "rule": "rule = {}",
    "severity": "severity = {}",
    "from": "raised_at >= {}",
    "to": "raised_at < {}",
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such alarm"}}
_LARGEST_ID = 2**63 - 1

AlarmId = Annotated[int, Path(alias="id", ge=1, le=_LARGEST_ID)]


@router.get(
    "",
    operation_id="listAlarms",
    summary="List alarms",
    openapi_extra=needs("read", only_seen(site=SITE)),
    response_model=AlarmPage,
    responses=CSV_RESPONSES,
)
async def list_alarms(
    request: Request,
    services: WithServices,
    sight: WithSight,
    form: AskedMediaType,
    state: Annotated[State, Query(description="Open alarms are those that are not cleared.")] = "open",
    site: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Of devices of this site.")
    ] = None,
    device: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Of devices with this id.")
    ] = None,
    rule: Annotated[str | None, Query(pattern=RULE_PATTERN, description="Raised by this rule.")] = None,
    severity: Annotated[Severity | None, Query(description="Of this severity.")] = None,
    start: Annotated[Instant | None, Query(alias="from", description="Raised at this time or later.")] = None,
    end: Annotated[Instant | None, Query(alias="to", description="Raised before this time.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Alarms, the newest first: a page as JSON, or with `Accept: text/csv` the whole list, independent of `limit`."""
    if start is not None and end is not None and start >= end:
        raise invalid("from", f"{format_timestamp(start)} is not before to, {format_timestamp(end)}")
    filters = {"site": site, "device": device, "rule": rule, "severity": severity, "from": start, "to": end}

    async def page(before: int | None, size: int) -> Page[asyncpg.Record, int]:
        sql, arguments = _page_sql(state, sight, filters)
        async with connection(services.pool) as c:
            rows = await c.fetch(sql, _LARGEST_ID if before is None else before, size + 1, *arguments, *sight.arguments)
        return first_rows(rows, size, itemgetter("id"))

    first = None if cursor is None else decode_number(cursor, _LARGEST_ID)
    if form == "text/csv":
        return await csv_stream("alarms", columns(Alarm), tuple, lambda before: page(before, CSV_PAGE), first)
    rows, last = await page(first, limit)
    following = None if last is None else encode_cursor(last)
    found = AlarmPage(items=[_alarm(row) for row in rows], next_cursor=following)
    headers = next_link(request.query_params, following) | {"Vary": "Accept"}
    return JSONResponse(found.model_dump(mode="json"), headers=headers)


@router.get(
    "/{id}",
    operation_id="getAlarm",
    summary="Get an alarm",
    openapi_extra=needs("read", only_seen()),
    responses=_UNKNOWN,
)
async def get_alarm(services: WithServices, sight: WithSight, id_: AlarmId) -> Alarm:
    """One alarm, open or cleared."""
    async with connection(services.pool) as c:
        row = await c.fetchrow(f"{_ONE} AND {_seen(sight, 2)}", id_, *sight.arguments)
    if row is None:
        raise _unknown(id_)
    return _alarm(row)


@router.post(
    "/{id}/acknowledge",
    operation_id="acknowledgeAlarm",
    summary="Acknowledge an alarm",
    openapi_extra=needs("assign"),
    responses=BODY_RESPONSES | _UNKNOWN | {409: {"description": "The alarm is acknowledged already"}},
)
async def acknowledge_alarm(
    services: WithServices, caller: Caller, id_: AlarmId, body: Acknowledgement | None = None
) -> Alarm:
    """Record that a person knows of the alarm: when, the name of the key, and a note. It stays open until its cause is
    gone. An alarm is acknowledged once."""
    note = None if body is None else body.note
    async with connection(services.pool) as c, c.transaction():
        row = await c.fetchrow(_ACKNOWLEDGE, id_, caller.name, note)
        if row is None:
            known = await c.fetchrow(_ONE, id_)
            if known is None:
                raise _unknown(id_)
            at = format_timestamp(known["acknowledged_at"])
            raise Problem(409, f"alarm {id_} was acknowledged by {known['acknowledged_by']} at {at}")
        await audit.record(c, f"key:{caller.id}", "alarm.acknowledge", f"alarm:{id_}", note=note)
    return _alarm(row)


def _page_sql(state: State, sight: Sight, filters: dict[str, str | datetime | None]) -> tuple[str, Sequence[object]]:
    """The statement for the page before the id $1, and its arguments from $3 on."""
    given = {name: value for name, value in filters.items() if value is not None}
    conditions = [_STATES[state], *(_FILTERS[name].format(f"${n}") for n, name in enumerate(given, start=3))]
    conditions.append(_seen(sight, 3 + len(given)))
    where = " AND ".join(conditions)
    return f"SELECT {_COLUMNS} FROM alarm WHERE id < $1 AND {where} ORDER BY id DESC LIMIT $2", list(given.values())  # noqa: S608


def _seen(sight: Sight, first: int) -> str:
    """A limited key sees the alarms of its devices, and none that concerns no device."""
    return sight.condition("alarm.kind", "alarm.device", first)


def _alarm(row: asyncpg.Record) -> Alarm:
    return Alarm.model_validate(dict(row))


def _unknown(id_: int) -> Problem:
    return Problem(404, f"there is no alarm {id_}")
