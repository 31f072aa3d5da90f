"""GET /v1/live/...: the newest state of each device, from the live tables alone."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from api.database import Pool, connection
from api.models import MeterPage, MeterState, VehiclePage, VehicleState
from api.paging import Cursor, Limit, decode_device, encode_cursor
from api.period import DeviceId
from api.problems import Problem
from api.rows import METER_COLUMNS, VEHICLE_COLUMNS, page_json, row_json
from api.services import WithServices
from bridge.tables import METER, VEHICLE, Table

router = APIRouter(prefix="/v1/live", tags=["live"])

NEVER_SEEN: dict[int | str, dict[str, Any]] = {404: {"description": "The device has never been seen"}}
_COLUMNS = {"vehicle": VEHICLE_COLUMNS, "meter": METER_COLUMNS}


def _page_sql(table: Table) -> str:
    key = table.device_column
    return f"SELECT {_COLUMNS[table.kind]} FROM {table.live} WHERE {key} > $1 ORDER BY {key} LIMIT $2"  # noqa: S608


def _one_sql(table: Table) -> str:
    return f"SELECT {_COLUMNS[table.kind]} FROM {table.live} WHERE {table.device_column} = $1"  # noqa: S608


_PAGE = {"vehicle": _page_sql(VEHICLE), "meter": _page_sql(METER)}
_ONE = {"vehicle": _one_sql(VEHICLE), "meter": _one_sql(METER)}


@router.get("/vehicles", response_model=VehiclePage)
async def live_vehicles(services: WithServices, cursor: Cursor = None, limit: Limit = 100) -> Response:
    """The newest state of every vehicle, by vehicle id."""
    return await _page(services.pool, VEHICLE, cursor, limit)


@router.get("/vehicles/{vehicleId}", response_model=VehicleState, responses=NEVER_SEEN)
async def live_vehicle(services: WithServices, vehicleId: DeviceId) -> Response:  # noqa: N803
    """The newest state of one vehicle."""
    return await _one(services.pool, VEHICLE, vehicleId)


@router.get("/meters", response_model=MeterPage)
async def live_meters(services: WithServices, cursor: Cursor = None, limit: Limit = 100) -> Response:
    """The newest state of every meter, by meter id."""
    return await _page(services.pool, METER, cursor, limit)


@router.get("/meters/{meterId}", response_model=MeterState, responses=NEVER_SEEN)
async def live_meter(services: WithServices, meterId: DeviceId) -> Response:  # noqa: N803
    """The newest state of one meter."""
    return await _one(services.pool, METER, meterId)


async def _page(pool: Pool, table: Table, cursor: str | None, limit: int) -> Response:
    after = decode_device(cursor)
    async with connection(pool) as c:
        rows = await c.fetch(_PAGE[table.kind], after, limit + 1)
    page = rows[:limit]
    following = encode_cursor(page[-1][table.device_column]) if len(rows) > limit else None
    return Response(page_json(page, following), media_type="application/json")


async def _one(pool: Pool, table: Table, device: str) -> Response:
    async with connection(pool) as c:
        row = await c.fetchrow(_ONE[table.kind], device)
    if row is None:
        raise never_seen(table, device)
    return Response(row_json(row), media_type="application/json")


def never_seen(table: Table, device: str) -> Problem:
    """404: no reading of the device was ever stored."""
    return Problem(404, f"{table.kind} {device} has never been seen")
