"""Which vehicle a meter feeds, and since when. A row holds until the meter's next one: periods cannot overlap."""

from datetime import datetime
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Path
from starlette.responses import JSONResponse, Response

from api.database import Connection, connection
from api.models import Assignment, AssignmentPage, NewAssignment
from api.paging import Cursor, Limit, decode_time, decode_time_and_device, encode_cursor
from api.period import DeviceId, Instant
from api.services import Caller, WithServices
from bridge import audit

router = APIRouter(prefix="/v1", tags=["assignments"])

_LOCK = "SELECT vehicle_id FROM meter_assignment WHERE meter_id = $1 AND valid_from = $2 FOR UPDATE"
_PUT = """
INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id) VALUES ($1, $2, $3)
ON CONFLICT (meter_id, valid_from) DO UPDATE SET vehicle_id = excluded.vehicle_id, assigned_at = now()
WHERE meter_assignment.vehicle_id IS DISTINCT FROM excluded.vehicle_id
RETURNING (xmax = 0) AS created
"""
# The end of a row is the begin of the meter's next one, whoever that is for.
_SELECT = """
SELECT a.meter_id, a.valid_from, a.vehicle_id, a.assigned_at,
       (SELECT min(n.valid_from) FROM meter_assignment n
        WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from) AS valid_to
FROM meter_assignment a
"""
_ONE = _SELECT + "WHERE a.meter_id = $1 AND a.valid_from = $2"
_OF_METER = _SELECT + (
    "WHERE a.meter_id = $1 AND ($2::timestamptz IS NULL OR a.valid_from > $2) ORDER BY a.valid_from LIMIT $3"
)
_OF_VEHICLE = _SELECT + (
    "WHERE a.vehicle_id = $1 AND ($2::timestamptz IS NULL OR (a.valid_from, a.meter_id) > ($2, $3)) "
    "ORDER BY a.valid_from, a.meter_id LIMIT $4"
)


@router.put(
    "/meters/{meterId}/assignments/{from}",
    response_model=Assignment,
    responses={
        200: {"description": "Replaced, or as it was"},
        201: {"description": "Created", "model": Assignment},
        400: {"description": "Not JSON"},
        408: {"description": "The body did not arrive in time"},
        413: {"description": "The body is too large"},
    },
)
async def put_assignment(
    services: WithServices,
    caller: Caller,
    meterId: DeviceId,  # noqa: N803
    start: Annotated[Instant, Path(alias="from", description="RFC 3339 with an offset.")],
    assignment: NewAssignment,
) -> Response:
    """Say which vehicle a meter feeds from an instant on. Idempotent: 201 when it is new, 200 when it was there."""
    async with connection(services.pool) as c, c.transaction():
        created = await _put(c, f"key:{caller.id}", meterId, start, assignment.vehicle_id)
        row = await c.fetchrow(_ONE, meterId, start)
    assert row is not None
    return JSONResponse(_assignment(row).model_dump(mode="json"), 201 if created else 200)


async def _put(c: Connection, actor: str, meter: str, start: datetime, vehicle: str | None) -> bool:
    """Write the row and its trail; whether the row is new."""
    before = await c.fetchrow(_LOCK, meter, start)
    created: bool | None = await c.fetchval(_PUT, meter, start, vehicle)
    if created is None:  # it says so already
        return False
    replaced = {} if before is None else {"replaced": before["vehicle_id"]}
    await audit.record(
        c, actor, "assignment.put", f"meter:{meter}", **{"from": start.isoformat(), "vehicleId": vehicle}, **replaced
    )
    return created


@router.get("/meters/{meterId}/assignments", response_model=AssignmentPage)
async def meter_assignments(
    services: WithServices,
    meterId: DeviceId,  # noqa: N803
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AssignmentPage:
    """A meter's assignments."""
    after = None if cursor is None else decode_time(cursor)
    async with connection(services.pool) as c:
        rows = await c.fetch(_OF_METER, meterId, after, limit + 1)
    following = encode_cursor(rows[limit - 1]["valid_from"]) if len(rows) > limit else None
    return AssignmentPage(items=[_assignment(row) for row in rows[:limit]], next_cursor=following)


@router.get("/vehicles/{vehicleId}/assignments", response_model=AssignmentPage)
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


def _assignment(row: asyncpg.Record) -> Assignment:
    return Assignment(
        meter_id=row["meter_id"],
        start=row["valid_from"],
        end=row["valid_to"],
        vehicle_id=row["vehicle_id"],
        assigned_at=row["assigned_at"],
    )
