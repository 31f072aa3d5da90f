"""Which vehicle a meter feeds, and since when. A row is valid until the meter's next one: periods cannot overlap."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from api.assigning import Changes, Conflict, Period, Plan, lock_all, lock_meter, open_end
from api.assignment_models import AssignmentEnd, AssignmentRow, ImportedAssignments, NewAssignment
from api.bulk import BulkRoute, Faults, Placed, bulk_rows, refuse_repeated, request_body
from api.csv_format import columns
from api.database import Connection, connection
from api.models import Assignment, AssignmentPage
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, Limit, decode_time, decode_time_and_device, encode_cursor, next_link
from api.period import DeviceId, Instant
from api.problems import Problem, invalid
from api.routing import named, needs, only_seen
from api.services import Caller, WithServices, WithSight
from api.sight import Ids, Sight
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge import audit
from bridge.contract import METER, VEHICLE
from bridge.reading import DEVICE_ID_PATTERN, format_timestamp

router = APIRouter(prefix="/v1", tags=["assignments"])
bulk = APIRouter(prefix="/v1", tags=["assignments"], route_class=BulkRoute)

Start = Annotated[Instant, Path(alias="from", description="RFC 3339 with an offset.")]
Replace = Annotated[
    bool, Query(description="Replace or cut assignments that the request contradicts, instead of answering 409.")
]

# The end of a row is the begin of the meter's next one, for any vehicle.
_COLUMNS = """a.meter_id, a.valid_from, a.vehicle_id, a.assigned_at,
       (SELECT min(n.valid_from) FROM meter_assignment n
        WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from) AS valid_to"""
_SELECT = f"SELECT {_COLUMNS} FROM meter_assignment a "  # noqa: S608
_ONE = _SELECT + "WHERE a.meter_id = $1 AND a.valid_from = $2"
# A key does not see which other vehicles its meters fed.
_OF_METER = _SELECT + (
    "WHERE a.meter_id = $1 AND ($2::timestamptz IS NULL OR a.valid_from > $2) AND (a.vehicle_id IS NULL OR {seen}) "
    "ORDER BY a.valid_from LIMIT $3"
)
_OF_VEHICLE = _SELECT + (
    "WHERE a.vehicle_id = $1 AND ($2::timestamptz IS NULL OR (a.valid_from, a.meter_id) > ($2, $3)) "
    "ORDER BY a.valid_from, a.meter_id LIMIT $4"
)
_SEEN = f"""
SELECT {_COLUMNS} FROM (
    SELECT meter_id, valid_from, vehicle_id, assigned_at FROM {{of_vehicles}}
    UNION ALL
    SELECT meter_id, valid_from, vehicle_id, assigned_at FROM {{of_meters}} WHERE vehicle_id IS NULL
) AS a
"""  # noqa: S608
_FILTERS = {
    "meter": "meter_id = {}",
    "vehicle": "vehicle_id = {}",
    "at": "valid_from <= {0} AND (valid_to IS NULL OR valid_to > {0})",
    "from": "(valid_to IS NULL OR valid_to > {})",
    "to": "valid_from < {}",
}
_DELETE = "DELETE FROM meter_assignment WHERE meter_id = $1 AND valid_from = $2 RETURNING vehicle_id"
_EXAMPLE = (
    "meterId,vehicleId,from,to\r\n"
    "METER_001,EV_002,2026-02-10T08:00:00Z,2026-02-10T17:30:00Z\r\n"
    "METER_001,EV_003,2026-02-10T18:00:00Z,\r\n"
)

_Responses = dict[int | str, dict[str, Any]]
_BODY: _Responses = {
    400: {"description": "Not JSON"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "The body is too large"},
    415: {"description": "Unsupported Content-Type or Content-Encoding"},
}
_NO_ROW: _Responses = {404: {"description": "No assignment of the meter begins at this time"}}
_CONFLICT: _Responses = {
    409: {"description": "Another assignment says otherwise; `errors` names its vehicle and times. Nothing is written"}
}


@router.put(
    "/meters/{meterId}/assignments/{from}",
    operation_id="putAssignment",
    summary="Assign a meter to a vehicle",
    openapi_extra=needs("assign"),
    response_model=Assignment,
    responses=_BODY
    | _CONFLICT
    | {
        200: {"description": "Replaced, or unchanged"},
        201: {"description": "Created", "model": Assignment},
    },
)
async def put_assignment(
    services: WithServices,
    caller: Caller,
    meterId: DeviceId,  # noqa: N803
    start: Start,
    assignment: NewAssignment,
    replace: Replace = False,
) -> Response:
    """Assign a meter to a vehicle from a given time. Idempotent: 201 if the assignment is new, 200 if it existed.

    It ends at `to`, or without it at the meter's next assignment.
    """
    period = _checked(Period(meterId, start, assignment.end, assignment.vehicle_id))
    async with connection(services.pool) as c, c.transaction():
        await lock_meter(c, meterId)
        changes = await _write_one(c, caller.id, "assignment.put", period, replace)
        answer = await _one(c, meterId, start)
    return JSONResponse(answer.model_dump(mode="json"), HTTPStatus.CREATED if changes.created else HTTPStatus.OK)


@router.patch(
    "/meters/{meterId}/assignments/{from}",
    operation_id="patchAssignment",
    summary="Change an assignment",
    openapi_extra=needs("assign"),
    responses=_BODY | _NO_ROW | _CONFLICT,
)
async def patch_assignment(
    services: WithServices,
    caller: Caller,
    meterId: DeviceId,  # noqa: N803
    start: Start,
    change: AssignmentEnd,
    replace: Replace = False,
) -> Assignment:
    """Set or move the end of an assignment. `"to": null` removes it: the assignment then ends at the next vehicle's."""
    async with connection(services.pool) as c, c.transaction():
        await lock_meter(c, meterId)
        before = await _one(c, meterId, start)
        if change.end is not None:
            period = _checked(Period(meterId, start, change.end, before.vehicle_id))
            await _write_one(c, caller.id, "assignment.patch", period, replace)
        elif "end" in change.model_fields_set and await open_end(c, meterId, start):
            detail = {"from": start.isoformat(), "vehicleId": before.vehicle_id, "to": None}
            await audit.record(c, f"key:{caller.id}", "assignment.patch", f"meter:{meterId}", **detail)
        return await _one(c, meterId, start)


@router.delete(
    "/meters/{meterId}/assignments/{from}",
    operation_id="deleteAssignment",
    summary="Remove an assignment",
    openapi_extra=needs("assign"),
    status_code=HTTPStatus.NO_CONTENT,
    responses=_NO_ROW,
)
async def delete_assignment(
    services: WithServices,
    caller: Caller,
    meterId: DeviceId,  # noqa: N803
    start: Start,
) -> None:
    """Remove an assignment. The meter's previous assignment is then valid until the next one.

    What the assignment had replaced is not restored.
    """
    async with connection(services.pool) as c, c.transaction():
        await lock_meter(c, meterId)
        row = await c.fetchrow(_DELETE, meterId, start)
        if row is None:
            raise _no_row(meterId, start)
        detail = {"from": start.isoformat(), "vehicleId": row["vehicle_id"]}
        await audit.record(c, f"key:{caller.id}", "assignment.delete", f"meter:{meterId}", **detail)


@bulk.post(
    "/assignments",
    operation_id="importAssignments",
    summary="Import assignments",
    responses=_BODY | _CONFLICT | {422: {"description": "Invalid rows; nothing is written"}},
    openapi_extra=needs("assign") | request_body(AssignmentRow, _EXAMPLE),
)
async def import_assignments(
    request: Request, services: WithServices, caller: Caller, replace: Replace = False
) -> ImportedAssignments:
    """Import many assignments, all or none. Up to 100,000 rows and 8 MiB, plain or gzip.

    A row ends at its `to`, or when the meter's next row of the same body begins, whichever is earlier.
    """
    rows = await bulk_rows(request, AssignmentRow, {})
    refuse_repeated(rows, lambda row: (row.meter_id, row.start), "from")
    _refuse_backwards(rows)
    plan = Plan([Period(row.meter_id, row.start, row.end, row.vehicle_id) for row in (r.row for r in rows)])
    async with connection(services.pool) as c, c.transaction():
        await lock_all(c)
        conflicts = await plan.conflicts(c)
        if conflicts and not replace:
            _refuse_conflicts(rows, conflicts)
        result = _imported(len(rows), await plan.write(c, conflicts))
        replaced = [conflict.as_json() for conflict in conflicts]
        await audit.record(
            c, f"key:{caller.id}", "assignment.import", "assignments", **result.model_dump(), replaced=replaced
        )
    return result


@router.get(
    "/assignments",
    operation_id="listAssignments",
    summary="List assignments",
    openapi_extra=needs("read", only_seen(meter=METER, vehicle=VEHICLE)),
    response_model=AssignmentPage,
    responses=CSV_RESPONSES,
)
async def all_assignments(
    request: Request,
    services: WithServices,
    sight: WithSight,
    form: AskedMediaType,
    meter: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="Assignments of this meter.")] = None,
    vehicle: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="Assignments of this vehicle.")] = None,
    at: Annotated[Instant | None, Query(description="Assignments that are valid at this time.")] = None,
    start: Annotated[Instant | None, Query(alias="from", description="Assignments that end after this time.")] = None,
    end: Annotated[Instant | None, Query(alias="to", description="Assignments that begin before this time.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """All assignments by meter and begin: a page as JSON, or with `Accept: text/csv` the whole list, independent of
    `limit`. A row without a vehicle is the time in which the meter feeds none."""
    filters = {"meter": meter, "vehicle": vehicle, "at": at, "from": start, "to": end}

    async def page(after: tuple[str, datetime] | None, size: int) -> Page[asyncpg.Record, tuple[str, datetime]]:
        async with connection(services.pool) as c:
            rows = await _filtered(c, sight, filters, after, size + 1)
        return first_rows(rows, size, itemgetter("meter_id", "valid_from"))

    begin = None if cursor is None else decode_time_and_device(cursor)[::-1]
    if form == "text/csv":
        header, cells = columns(AssignmentRow), itemgetter("meter_id", "vehicle_id", "valid_from", "valid_to")
        return await csv_stream("assignments", header, cells, lambda after: page(after, CSV_PAGE), begin)
    rows, last = await page(begin, limit)
    following = None if last is None else encode_cursor(*last[::-1])
    found = AssignmentPage(items=[_assignment(row) for row in rows], next_cursor=following)
    headers = next_link(request.query_params, following) | {"Vary": "Accept"}
    return JSONResponse(found.model_dump(mode="json"), headers=headers)


@router.get(
    "/meters/{meterId}/assignments",
    operation_id="listMeterAssignments",
    summary="List the assignments of a meter",
    openapi_extra=needs("read", only_seen(meterId=METER)),
    response_model=AssignmentPage,
)
async def meter_assignments(
    services: WithServices,
    sight: WithSight,
    meterId: DeviceId,  # noqa: N803
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AssignmentPage:
    """A meter's assignments."""
    after = None if cursor is None else decode_time(cursor)
    async with connection(services.pool) as c:
        sql = _OF_METER.format(seen=sight.condition("'vehicle'", "a.vehicle_id", first=4))
        rows = await c.fetch(sql, meterId, after, limit + 1, *sight.arguments)
    following = encode_cursor(rows[limit - 1]["valid_from"]) if len(rows) > limit else None
    return AssignmentPage(items=[_assignment(row) for row in rows[:limit]], next_cursor=following)


@router.get(
    "/vehicles/{vehicleId}/assignments",
    operation_id="listVehicleAssignments",
    summary="List the assignments of a vehicle",
    openapi_extra=needs("read", named(vehicleId=VEHICLE)),
    response_model=AssignmentPage,
)
async def vehicle_assignments(
    services: WithServices,
    vehicleId: DeviceId,  # noqa: N803
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AssignmentPage:
    """The periods in which meters fed a vehicle."""
    time, meter = (None, None) if cursor is None else decode_time_and_device(cursor)
    async with connection(services.pool) as c:
        rows = await c.fetch(_OF_VEHICLE, vehicleId, time, meter, limit + 1)
    following = None
    if len(rows) > limit:
        following = encode_cursor(rows[limit - 1]["valid_from"], rows[limit - 1]["meter_id"])
    return AssignmentPage(items=[_assignment(row) for row in rows[:limit]], next_cursor=following)


async def _write_one(c: Connection, key: str, action: audit.Action, period: Period, replace: bool) -> Changes:
    """Write one period and, if that changes anything, the audit row. Raises 409."""
    plan = Plan([period])
    conflicts = await plan.conflicts(c)
    if conflicts and not replace:
        errors = [{"field": _field(period.start, other), "reason": _reason(other)} for other in conflicts]
        raise Problem(409, f"{errors[0]['field']}: {errors[0]['reason']}", errors=errors)
    changes = await plan.write(c, conflicts)
    if any(changes):
        detail: dict[str, Any] = {"from": period.start.isoformat(), "vehicleId": period.vehicle}
        if period.end is not None:
            detail["to"] = period.end.isoformat()
        if conflicts:
            detail["replaced"] = [conflict.as_json() for conflict in conflicts]
        await audit.record(c, f"key:{key}", action, f"meter:{period.meter}", **detail)
    return changes


async def _one(c: Connection, meter: str, start: datetime) -> Assignment:
    """The assignment that begins at an instant. Raises 404."""
    row = await c.fetchrow(_ONE, meter, start)
    if row is None:
        raise _no_row(meter, start)
    return _assignment(row)


async def _filtered(
    c: Connection, sight: Sight, filters: Mapping[str, object], after: tuple[str, datetime] | None, limit: int
) -> list[asyncpg.Record]:
    """The rows after a position that pass the filters and that a key sees, by meter and begin."""
    given = {name: value for name, value in filters.items() if value is not None}
    sql = page_sql(sight, list(given), after is not None)
    return await c.fetch(sql, limit, *given.values(), *(after or ()), *sight.arguments)


def page_sql(sight: Sight, filters: Sequence[str], is_following: bool) -> str:
    """A page of the assignments that a key sees: those of its vehicles, and the time in which its meters feed none.

    $1 is the limit; the filters follow, the position of a following page, and the arguments of the sight.
    """
    conditions = [_FILTERS[name].format(f"${n}") for n, name in enumerate(filters, start=2)]
    first = 2 + len(filters)
    if is_following:
        conditions.append(f"(meter_id, valid_from) > (${first}, ${first + 1})")
        first += 2
    rows = _SELECT
    if sight.is_limited:
        of_vehicles, of_meters = (
            sight.rows(Ids(kind, "meter_assignment", kind.id_column), first) for kind in (VEHICLE, METER)
        )
        rows = _SEEN.format(of_vehicles=of_vehicles, of_meters=of_meters)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT * FROM ({rows}) AS a {where} ORDER BY meter_id, valid_from LIMIT $1"  # noqa: S608


def _checked(period: Period) -> Period:
    """The period itself. Raises 422 unless it ends after its begin."""
    if period.end is not None and period.end <= period.start:
        raise invalid("to", _backwards(period.start, period.end))
    return period


def _backwards(start: datetime, end: datetime) -> str:
    return f"{format_timestamp(end)} is not after from, {format_timestamp(start)}"


def _refuse_backwards(rows: Sequence[Placed[AssignmentRow]]) -> None:
    faults = Faults()
    for placed in rows:
        start, end = placed.row.start, placed.row.end
        if end is not None and end <= start:
            faults.add(placed.place, "to", _backwards(start, end))
    faults.refuse()


def _refuse_conflicts(rows: Sequence[Placed[AssignmentRow]], conflicts: Sequence[Conflict]) -> None:
    faults = Faults()
    for conflict in conflicts:
        placed = rows[conflict.period]
        faults.add(placed.place, _field(placed.row.start, conflict), _reason(conflict))
    faults.refuse(HTTPStatus.CONFLICT)


def _field(start: datetime, conflict: Conflict) -> str:
    """The bound of the period that is in conflict."""
    return "from" if conflict.start <= start else "to"


def _reason(conflict: Conflict) -> str:
    times = f"from {format_timestamp(conflict.start)}"
    if conflict.end is not None:
        times += f" to {format_timestamp(conflict.end)}"
    return f"meter {conflict.meter} is assigned to {conflict.vehicle} {times}; replace=true replaces that"


def _no_row(meter: str, start: datetime) -> Problem:
    return Problem(404, f"no assignment of meter {meter} begins at {format_timestamp(start)}")


def _imported(rows: int, changes: Changes) -> ImportedAssignments:
    unchanged = rows - changes.created - changes.changed
    return ImportedAssignments(rows=rows, unchanged=unchanged, **changes._asdict())


def _assignment(row: asyncpg.Record) -> Assignment:
    return Assignment(
        meter_id=row["meter_id"],
        start=row["valid_from"],
        end=row["valid_to"],
        vehicle_id=row["vehicle_id"],
        assigned_at=row["assigned_at"],
    )
