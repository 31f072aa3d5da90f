"""GET /v1/analytics/performance/{vehicleId}: AC and DC energy of a vehicle, its efficiency, and the coverage of both.

The query reads only the keys (they include the summed columns), in the partitions of the period.

- Energies are summed as integers in 1e-12 kWh: values with up to twelve decimals are summed exactly, independent of
  the order of the rows.
- The mean temperature is time-weighted: the linear interpolation between consecutive readings, integrated and divided
  by the time between the first and the last.
- Coverage is readings present / expected at `reading_interval_s`, at most 1. Expected is the elapsed part of the
  period; time before a device's first reading counts as not covered, because its energy was not measured.
- AC is the energy of the meters while they were assigned to the vehicle, each in half-open periods.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from operator import add, mul, sub
from struct import unpack
from typing import NamedTuple

import asyncpg
from fastapi import APIRouter

from api.database import Connection, connection
from api.live import NEVER_SEEN, never_seen
from api.models import MeterPeriod, MeterShare, Performance
from api.period import AskedPeriod, DeviceId, Period
from api.routing import needs
from api.services import WithServices
from bridge.contract import VEHICLE

router = APIRouter(prefix="/v1/analytics", tags=["analytics"])

# 1000 kWh are 1e15 units, which a float8 still holds exactly; sums of int8 are exact and as cheap as those of floats.
UNITS_PER_KWH = 10**12
_SQL = """
SELECT NULL AS meter_id, NULL::timestamptz AS period_from, NULL::timestamptz AS period_to, count(*) AS readings,
       sum((kwh_delivered_dc * 1e12)::int8) AS units,
       string_agg(point_send(point(tstzrange_subdiff(ts, $2), battery_temp)), NULL) AS points
FROM (SELECT vehicle_id, ts, kwh_delivered_dc, battery_temp FROM vehicle_telemetry_history
      WHERE vehicle_id = $1 AND ts >= $2 AND ts < $3 AND {days} ORDER BY vehicle_id, ts) AS reading
UNION ALL
SELECT assigned.meter_id, assigned.period_from, assigned.period_to, measured.readings, measured.units, NULL
FROM (SELECT a.meter_id, greatest(a.valid_from, $2) AS period_from,
             least($3, (SELECT min(n.valid_from) FROM meter_assignment n
                        WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from)) AS period_to
      FROM meter_assignment a WHERE a.vehicle_id = $1 AND a.valid_from < $3 OFFSET 0) AS assigned
CROSS JOIN LATERAL (
    SELECT count(*) AS readings, sum((kwh_consumed_ac * 1e12)::int8) AS units
    FROM (SELECT meter_id, ts, kwh_consumed_ac FROM meter_telemetry_history
          WHERE meter_id = assigned.meter_id AND ts >= assigned.period_from AND ts < assigned.period_to
            AND ts >= $2 AND ts < $3 AND {days} ORDER BY meter_id, ts) AS reading) AS measured
WHERE assigned.period_from < assigned.period_to
ORDER BY meter_id NULLS FIRST, period_from
"""
_SEEN = "SELECT EXISTS (SELECT FROM vehicle_live_status WHERE vehicle_id = $1)"


def analytics_sql(period: Period) -> str:
    """The vehicle's own row, then one for each assignment of a meter. $1 is the vehicle, $2 and $3 are the period.

    The values for the mean are packed as points (seconds since $2, by the function of PostgreSQL's tstzrange; degC), in
    the order of the key: a window function costs more than the rest of the query. The inner SELECTs list the columns
    in the order of the key, and ORDER BY prevents the planner from dropping one, so that scans pass their entries on
    unchanged. OFFSET 0 prevents it from expanding the assignment's SELECT three times.
    """
    return _SQL.format(days=period.days_sql())


class Expectation(NamedTuple):
    """How many readings a device should have sent by now."""

    now: datetime
    interval_s: float

    def coverage(self, readings: int, periods: Iterable[Period]) -> float | None:
        """Readings present / expected, at most 1; None while nothing is expected."""
        expected = sum(period.elapsed_s(self.now) for period in periods) / self.interval_s
        return min(1.0, readings / expected) if expected > 0 else None


@router.get(
    "/performance/{vehicleId}",
    operation_id="getVehiclePerformance",
    openapi_extra=needs("read"),
    responses=NEVER_SEEN,
)
async def performance(services: WithServices, period: AskedPeriod, vehicleId: DeviceId) -> Performance:  # noqa: N803
    """A vehicle's AC and DC energy, their ratio and its mean battery temperature over a period."""
    async with connection(services.pool) as c:
        vehicle, assigned = await ask(c, vehicleId, period)
    expectation = Expectation(datetime.now(UTC), services.settings.reading_interval_s)
    dc, ac = _kwh([vehicle]), _kwh(assigned)
    efficiency, reason = _efficiency(ac, dc, bool(assigned))
    return Performance(
        vehicle_id=vehicleId,
        start=period.start,
        end=period.end,
        total_kwh_consumed_ac=ac,
        total_kwh_delivered_dc=dc,
        efficiency=efficiency,
        efficiency_reason=reason,
        avg_battery_temp=_mean_over_time(vehicle),
        readings=vehicle["readings"],
        coverage=expectation.coverage(vehicle["readings"], [period]),
        meters=_shares(assigned, expectation),
    )


async def ask(c: Connection, vehicle_id: str, period: Period) -> tuple[asyncpg.Record, list[asyncpg.Record]]:
    """The sums of the vehicle, and those of its meters for each assignment. Raises 404."""
    vehicle, *assigned = await c.fetch(analytics_sql(period), vehicle_id, period.start, period.end)
    if not vehicle["readings"] and not await c.fetchval(_SEEN, vehicle_id):
        raise never_seen(VEHICLE, vehicle_id)
    return vehicle, assigned


def _mean_over_time(vehicle: asyncpg.Record) -> float | None:
    """The time-weighted mean of the temperatures, linearly interpolated, degC; None without a temperature."""
    if vehicle["points"] is None:
        return None
    points = unpack(f">{len(vehicle['points']) // 8}d", vehicle["points"])
    at_s, temps = points[::2], points[1::2]
    if len(temps) == 1:
        return float(temps[0])
    doubled = map(mul, map(add, temps, temps[1:]), map(sub, at_s[1:], at_s))
    return float(sum(doubled) / (2 * (at_s[-1] - at_s[0])))


def _kwh(measured: Iterable[asyncpg.Record]) -> float | None:
    """The energy of all rows together, or None where nothing was measured: absent is not zero."""
    units = [int(row["units"]) for row in measured if row["units"] is not None]
    return sum(units) / UNITS_PER_KWH if units else None


def _efficiency(ac: float | None, dc: float | None, any_assigned: bool) -> tuple[float | None, str | None]:
    """DC / AC, or None and the reason why it is not defined."""
    if not any_assigned:
        return None, "no meter was assigned to the vehicle in this period"
    if ac is None:
        return None, "the assigned meters have no readings in this period"
    if dc is None:
        return None, "the vehicle has no readings in this period"
    if ac == 0:
        return None, "the meters measured no AC energy in this period"
    if ac < 0:
        return None, "more AC energy flowed back to the grid than was drawn in this period"
    return dc / ac, None


def _shares(assigned: Iterable[asyncpg.Record], expectation: Expectation) -> list[MeterShare]:
    by_meter = groupby(assigned, key=lambda row: row["meter_id"])
    return [_share(meter_id, list(rows), expectation) for meter_id, rows in by_meter]


def _share(meter_id: str, rows: list[asyncpg.Record], expectation: Expectation) -> MeterShare:
    readings = sum(row["readings"] for row in rows)
    return MeterShare(
        meter_id=meter_id,
        kwh_consumed_ac=_kwh(rows),
        readings=readings,
        coverage=expectation.coverage(readings, map(_period, rows)),
        periods=[_meter_period(row, expectation) for row in rows],
    )


def _meter_period(row: asyncpg.Record, expectation: Expectation) -> MeterPeriod:
    period = _period(row)
    return MeterPeriod(
        start=period.start,
        end=period.end,
        kwh_consumed_ac=_kwh([row]),
        readings=row["readings"],
        coverage=expectation.coverage(row["readings"], [period]),
    )


def _period(row: asyncpg.Record) -> Period:
    return Period(row["period_from"], row["period_to"])
