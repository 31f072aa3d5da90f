"""GET /v1/system: the processes of the platform, by the row that each replaces every few seconds (`bridge.status`)."""

from datetime import datetime
from typing import Annotated, Literal

import asyncpg
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.alarm_models import SEVERITIES
from api.database import connection
from api.period import Instant
from api.routing import NOTHING, needs
from api.services import WithServices
from bridge.alarms.measures import CERTIFICATE_DAYS, DISK_DAYS
from bridge.status import COUNT_LOST_BRIDGES, EVERY_S, FIGURES, STALE_S, Program

router = APIRouter(prefix="/v1", tags=["operation"])

_PROCESSES = f"""
SELECT program, instance, name, version, started_at, reported_at,
       greatest(extract(epoch FROM now() - reported_at), 0)::float8 AS age_seconds,
       active, problem, {", ".join(FIGURES)}
FROM process_status ORDER BY program, instance
"""  # noqa: S608
_NEEDED: tuple[Literal["bridge", "keeper"], ...] = ("bridge", "keeper")
_NOW = "SELECT now()"
_ALARMS = "SELECT severity, count(*) AS number FROM alarm WHERE cleared_at IS NULL GROUP BY severity"
_SIZE = "SELECT bytes FROM database_size ORDER BY at DESC LIMIT 1"


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class Process(_Answer):
    """A process, as it described itself at `reportedAt`. A figure that it does not have is null."""

    program: Program
    instance: Annotated[str, Field(description="Host name and HTTP port.", examples=["depot-1:9100"])]
    name: Annotated[str | None, Field(description="Of a bridge: `FLEET_BRIDGE_NAME`.")]
    version: str
    started_at: Instant
    reported_at: Instant
    age_seconds: Annotated[float, Field(description="Time since `reportedAt`, s.")]
    stale: Annotated[
        bool,
        Field(
            description=f"Older than {STALE_S:.0f} s: the process is frozen, cut off from the database, or has died."
        ),
    ]
    active: Annotated[bool, Field(description="False in standby.")]
    problem: Annotated[str | None, Field(description="Why it is not ready.")]
    readings_per_s: Annotated[
        float | None,
        Field(description="Bridge, API: committed per second since the report before, duplicates and rejects too."),
    ]
    commit_mean_s: Annotated[
        float | None,
        Field(description="Mean time from the first attempt to the commit of a batch, s; null without a batch."),
    ]
    commit_p99_s: Annotated[float | None, Field(description="The 99th percentile of the same, estimated.")]
    waiting: Annotated[float | None, Field(description="Readings in memory that are not committed yet.")]
    capacity: Annotated[float | None, Field(description="`FLEET_BUFFER_CAPACITY`.")]
    lag_s: Annotated[
        float | None,
        Field(
            description="Bridge, API: for how long readings have waited without any commit. Keeper: for how long the "
            "duty has been due that is due for longest.",
        ),
    ]
    quarters_behind_s: Annotated[float | None, Field(description="Keeper: time that is over and is not summarized, s.")]
    dirty_quarters: Annotated[
        float | None, Field(description="Keeper: quarter hours whose summary lacks a late reading.")
    ]
    certificate_days: Annotated[float | None, Field(description=f"Keeper: {CERTIFICATE_DAYS.meaning}")]
    disk_days: Annotated[float | None, Field(description=f"Keeper: {DISK_DAYS.meaning}")]


class OpenAlarms(_Answer):
    """Numbers of alarms that are not cleared."""

    critical: int
    warning: int
    info: int


class System(_Answer):
    """The state of the platform."""

    at: Instant
    processes: Annotated[
        list[Process],
        Field(
            description=f"Those that run, which report every {EVERY_S:.0f} s, and those that stopped reporting in "
            "the last day."
        ),
    ]
    missing: Annotated[
        list[Literal["bridge", "keeper"]], Field(description="Programs of which no process is active and reports.")
    ]
    bridges_lost: Annotated[
        int | None,
        Field(
            description="Bridges that stopped reporting without being stopped, and were not replaced by one of their "
            "name, or are active and not ready; null while no bridge works."
        ),
    ]
    readings_per_s: Annotated[float, Field(description="Sum over the active processes.")]
    certificate_days: Annotated[float | None, Field(description="Of the active keeper; null when it is not known.")]
    disk_days: Annotated[float | None, Field(description="Of the active keeper; null when it is not known.")]
    database_bytes: Annotated[int | None, Field(description="Size of the database in the last hour; null at first.")]
    open_alarms: OpenAlarms


@router.get(
    "/system",
    operation_id="getSystem",
    summary="Get the state of the platform",
    openapi_extra=needs("read", NOTHING),
)
async def system(services: WithServices) -> System:
    """Every bridge, keeper and API process that writes to the database, on any host, with the age of what is known
    of it."""
    async with connection(services.pool) as c:
        at = await c.fetchval(_NOW)
        processes = [_process(row) for row in await c.fetch(_PROCESSES)]
        alarms = {row["severity"]: row["number"] for row in await c.fetch(_ALARMS)}
        lost = await c.fetchval(COUNT_LOST_BRIDGES)
        size = await c.fetchval(_SIZE)
    return _system(at, processes, alarms, lost, size)


def _process(row: asyncpg.Record) -> Process:
    return Process.model_validate({**row, "stale": row["age_seconds"] > STALE_S})


def _system(
    at: datetime, processes: list[Process], alarms: dict[str, int], lost: int | None, size: int | None
) -> System:
    working = [process for process in processes if process.active and not process.stale]
    keeper = next((process for process in working if process.program == "keeper"), None)
    return System(
        at=at,
        processes=processes,
        missing=[program for program in _NEEDED if all(process.program != program for process in working)],
        bridges_lost=lost,
        readings_per_s=sum(process.readings_per_s or 0.0 for process in working),
        certificate_days=keeper and keeper.certificate_days,
        disk_days=keeper and keeper.disk_days,
        database_bytes=size,
        open_alarms=OpenAlarms.model_validate(dict.fromkeys(SEVERITIES, 0) | alarms),
    )
