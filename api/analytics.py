"""GET /v1/analytics/performance/{vehicleId}: a vehicle's AC and DC energy, and what these figures rest on.

The rules are those of `api.energy` (DESIGN 5).
"""

from datetime import UTC, datetime, timedelta
from heapq import nlargest
from itertools import groupby

import asyncpg
from fastapi import APIRouter

from api import models
from api.database import Connection, connection
from api.energy.assignments import Assignment
from api.energy.coverage import ratio
from api.energy.performance import Feed, Performance
from api.energy.spans import Span, intersection
from api.energy.units import kwh_of
from api.live import NEVER_SEEN, never_seen
from api.measured import Question, measured, with_neighbours
from api.period import AskedPeriod, DeviceId, Period
from api.routing import needs
from api.services import WithServices
from bridge.contract import METER, VEHICLE

router = APIRouter(prefix="/v1/analytics", tags=["analytics"])

_US = timedelta(microseconds=1)
_MOST_GAPS = 1_000
_BATTERY_TEMP = next(measure for measure in VEHICLE.measures if measure.name == "batteryTemp")
# Of the meters that feed the vehicle at some time of the period, all assignments: an interval is divided among them.
_ASSIGNED = """
WITH assigned AS (
    SELECT a.meter_id, a.vehicle_id, a.valid_from,
           (SELECT min(n.valid_from) FROM meter_assignment n
            WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from) AS valid_to
    FROM meter_assignment a
    WHERE a.meter_id IN (SELECT m.meter_id FROM meter_assignment m WHERE m.vehicle_id = $1 AND m.valid_from < $3)
)
SELECT meter_id, vehicle_id, greatest(valid_from, $4) AS valid_from, least(valid_to, $5) AS valid_to
FROM assigned
WHERE vehicle_id IS NOT NULL AND valid_from < $5 AND coalesce(valid_to, $5) > $4
  AND meter_id IN (SELECT o.meter_id FROM assigned o
                   WHERE o.vehicle_id = $1 AND o.valid_from < $3 AND coalesce(o.valid_to, $3) > $2)
ORDER BY meter_id, valid_from
"""


@router.get(
    "/performance/{vehicleId}",
    operation_id="getVehiclePerformance",
    openapi_extra=needs("read"),
    responses=NEVER_SEEN,
)
async def performance(
    services: WithServices,
    period: AskedPeriod,
    vehicleId: DeviceId,  # noqa: N803
) -> models.Performance:
    """A vehicle's AC and DC energy, their ratio and its mean battery temperature over a period."""
    async with connection(services.pool) as c:
        figures = await ask(c, vehicleId, period, services.settings.reading_interval_s)
    return answer(vehicleId, period, figures)


async def ask(c: Connection, vehicle_id: str, period: Period, default_interval_s: float) -> Performance:
    """The figures of a vehicle. Raises 404 when neither it nor a meter of its has ever been heard of."""
    whole = Span(0, (period.end - period.start) // _US)
    now = (datetime.now(UTC) - period.start) // _US
    vehicle = await measured(c, Question(VEHICLE, period, _BATTERY_TEMP), vehicle_id, default_interval_s)
    around = with_neighbours(period)
    rows = await c.fetch(_ASSIGNED, vehicle_id, period.start, period.end, around.start, around.end)
    feeds = []
    for meter_id, own in groupby(rows, key=lambda row: row["meter_id"]):
        meter = await measured(c, Question(METER, period), meter_id, default_interval_s)
        feeds.append(Feed(meter_id, meter, vehicle_id, [_assignment(row, period) for row in own], whole, now))
    if not vehicle.is_known and not feeds:
        raise never_seen(VEHICLE, vehicle_id)
    return Performance(vehicle, feeds, whole, now)


def _assignment(row: asyncpg.Record, period: Period) -> Assignment:
    start, end = ((row[name] - period.start) // _US for name in ("valid_from", "valid_to"))
    return Assignment(start, end, row["vehicle_id"])


def answer(vehicle_id: str, period: Period, figures: Performance) -> models.Performance:
    """The figures as they are answered."""
    charge, discharge = figures.charge, figures.discharge
    return models.Performance(
        vehicle_id=vehicle_id,
        start=period.start,
        end=period.end,
        total_kwh_consumed_ac=_kwh(figures.ac),
        total_kwh_delivered_dc=_kwh(figures.dc),
        charge_kwh_ac=kwh_of(charge.ac),
        charge_kwh_dc=kwh_of(charge.dc),
        efficiency=charge.dc / charge.ac if charge.ac else None,
        efficiency_reason=figures.no_efficiency,
        discharge_kwh_dc=kwh_of(discharge.dc),
        discharge_kwh_ac=kwh_of(discharge.ac),
        discharge_efficiency=discharge.ac / discharge.dc if discharge.dc else None,
        avg_battery_temp=figures.mean_gauge,
        readings=len(figures.vehicle.times),
        coverage=figures.dc_coverage,
        dc_coverage=figures.dc_coverage,
        ac_coverage=figures.ac_coverage,
        complete=figures.is_complete,
        boundary_kwh=kwh_of(figures.boundary),
        suspect_kwh=kwh_of(figures.suspect),
        unassigned_kwh=kwh_of(sum(feed.unassigned for feed in figures.feeds)),
        resets=figures.resets,
        gaps=_gaps(figures, period),
        meters=[_share(feed, period) for feed in figures.feeds],
    )


def _kwh(units: int | None) -> float | None:
    return None if units is None else kwh_of(units)


def _bounds(span: Span, period: Period) -> dict[str, datetime]:
    return {"start": period.start + span.start * _US, "end": period.start + span.end * _US}


def _gaps(figures: Performance, period: Period) -> list[models.Gap]:
    longest = nlargest(_MOST_GAPS, figures.gaps, key=lambda gap: gap[1].end - gap[1].start)
    return [
        models.Gap(side="dc" if meter_id is None else "ac", meter_id=meter_id, **_bounds(span, period))
        for meter_id, span in sorted(longest, key=lambda gap: gap[1])
    ]


def _share(feed: Feed, period: Period) -> models.MeterShare:
    return models.MeterShare(
        meter_id=feed.meter_id,
        kwh_consumed_ac=_kwh(feed.net([feed.period])),
        readings=feed.readings,
        coverage=ratio(feed.covered, feed.expected),
        unassigned_kwh=kwh_of(feed.unassigned),
        periods=[_meter_period(feed, span, period) for span in feed.assigned],
    )


def _meter_period(feed: Feed, span: Span, period: Period) -> models.MeterPeriod:
    return models.MeterPeriod(
        kwh_consumed_ac=_kwh(feed.net([span])),
        readings=sum(span.start <= at < span.end for at in feed.measured.times),
        coverage=ratio(feed.covered, intersection(feed.expected, [span])),
        **_bounds(span, period),
    )
