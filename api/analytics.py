"""GET /v1/analytics/performance/{vehicleId}: a vehicle's AC and DC energy, and what these figures rest on.

The rules are those of `api.energy` (DESIGN 5).
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from heapq import nlargest

from fastapi import APIRouter
from starlette.responses import Response

from api import models
from api.as_of import WithReading
from api.csv_format import cells, columns
from api.database import Connection, connection
from api.energy.assignments import changes_of, edges_of
from api.energy.coverage import ratio
from api.energy.performance import Feed, Performance
from api.energy.spans import Span, intersection
from api.energy.units import US_PER_S, kwh_of
from api.groups import feeding, has_fed, refuse_unknown
from api.live import NEVER_SEEN
from api.measured import Readers
from api.measured_sql import Question
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.period import DeviceId, FiguresPeriod, Period
from api.routing import named, needs
from api.services import WithFigures
from api.streaming import csv_stream, pages_of
from bridge.contract import METER, VEHICLE

router = APIRouter(prefix="/v1/analytics", tags=["analytics"])

_US = timedelta(microseconds=1)
_MOST_GAPS = 1_000
_SHORT = timedelta(days=7)
_BATTERY_TEMP = next(measure for measure in VEHICLE.measures if measure.name == "batteryTemp")


@router.get(
    "/performance/{vehicleId}",
    operation_id="getVehiclePerformance",
    summary="Get energy and efficiency of a vehicle",
    openapi_extra=needs("read", named(vehicleId=VEHICLE)),
    response_model=models.Performance,
    responses=NEVER_SEEN | CSV_RESPONSES,
)
async def performance(
    services: WithFigures,
    reading: WithReading,
    form: AskedMediaType,
    period: FiguresPeriod,
    vehicleId: DeviceId,  # noqa: N803
) -> Response:
    """A vehicle's AC and DC energy, their ratio and its mean battery temperature over a period: as JSON, or with
    `Accept: text/csv` as one row without `gaps` and `meters`."""
    async with connection(reading) as c:
        figures = await ask(c, vehicleId, period, services.settings.reading_interval_s)
    found = answer(vehicleId, period, figures)
    if form == "text/csv":
        model = models.PerformanceFigures
        return await csv_stream(f"performance-{vehicleId}", columns(model), partial(cells, model), pages_of([found]))
    return Response(found.model_dump_json(), headers={"Vary": "Accept"}, media_type=form)


async def ask(c: Connection, vehicle_id: str, period: Period, default_interval_s: float) -> Performance:
    """The figures of a vehicle. Raises 404 when it has never reported and is neither declared nor assigned."""
    whole = Span(0, period.us(period.end))
    now = period.us(datetime.now(UTC))
    around = await feeding(c, vehicle_id, period)
    changes = changes_of(vehicle_id, around.values())
    assigned = {name: own for name, own in around.items() if has_fed(own, vehicle_id, whole)}
    # In a short period it costs less to read these quarter hours at once than to find out that they are needed.
    is_short = period.end - period.start <= _SHORT
    asked = [
        (Question(METER, period, cuts=[*edges_of(own), *changes], is_compared=is_short, is_whole=True), name)
        for name, own in assigned.items()
    ]
    own_question = Question(VEHICLE, period, _BATTERY_TEMP, cuts=changes, is_whole=True)
    readers = Readers(c, [*asked, (own_question, vehicle_id)], default_interval_s)
    found = await readers.read()
    if not found[-1].is_known and not assigned:
        await refuse_unknown(c, VEHICLE, [vehicle_id])
    places = {name: n for n, name in enumerate([*assigned, None])}
    while True:
        feeds = [Feed(name, found[places[name]], vehicle_id, own, whole, now) for name, own in assigned.items()]
        figures = Performance(found[-1], feeds, changes, whole, now, readers.detached_days)
        if not (sums := figures.too_coarse):
            return figures
        for n, refined in (await readers.refine({places[name]: own for name, own in sums.items()})).items():
            found[n] = refined


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
        readings=figures.vehicle.readings(figures.period),
        coverage=figures.dc_coverage,
        dc_coverage=figures.dc_coverage,
        ac_coverage=figures.ac_coverage,
        complete=figures.is_complete,
        boundary_kwh=kwh_of(figures.boundary),
        divided_kwh=kwh_of(figures.divided),
        suspect_kwh=kwh_of(figures.suspect),
        unassigned_kwh=kwh_of(sum(feed.unassigned for feed in figures.feeds)),
        resets=figures.resets,
        interval_s=figures.vehicle.interval_us / US_PER_S,
        interval_source=figures.vehicle.interval_source,
        detached_days=list(figures.detached_days),
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
        interval_s=feed.measured.interval_us / US_PER_S,
        interval_source=feed.measured.interval_source,
        periods=[_meter_period(feed, span, period) for span in feed.assigned],
    )


def _meter_period(feed: Feed, span: Span, period: Period) -> models.MeterPeriod:
    return models.MeterPeriod(
        kwh_consumed_ac=_kwh(feed.net([span])),
        readings=feed.measured.readings(span),
        coverage=ratio(feed.covered, intersection(feed.expected, [span])),
        **_bounds(span, period),
    )
