"""GET /v1/analytics/efficiency: losses and efficiency of charging, of the fleet or of sites.

It compares the quarter hours that `api.efficiency_sql` chooses. Unlimited keys with the same question share one answer
for a minute: the page of every viewer asks for the fleet's.
"""

from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from api import models
from api.as_of import WithReading
from api.csv_format import cells, columns
from api.database import connection
from api.efficiency_sql import efficiency_sql
from api.energy.units import kwh_of
from api.energy_by_time import Site, refuse_unknown_site
from api.groups import Wanted, find_groups
from api.measured import detached_days
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.period import Instant, Period, checked
from api.problems import invalid
from api.read_limit import FOLDED, closed
from api.replicas.reading import Reading
from api.routing import SITE, needs, only_seen
from api.services import Services, WithFigures, WithSight
from api.streaming import csv_stream, pages_of
from bridge.contract import KINDS, METER, VEHICLE
from bridge.reading import format_timestamp

router = APIRouter(prefix="/v1/analytics", tags=["analytics"])

_NO_SITE: dict[int | str, dict[str, Any]] = {404: {"description": "No device is declared at the site"}}
_QUARTER = timedelta(minutes=15)
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING = {"units": 0, "ac": 0, "dc": 0, "quarters": 0, "vehicles": 0}
# The planner does not know how many rows the steps have, and would compare each with each.
_SESSION = "SET LOCAL jit = off; SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '64MB'"


async def _today(
    services: WithFigures,
    start: Annotated[
        Instant | None, Query(alias="from", description="Begin, included. Default: the UTC day of `to`.")
    ] = None,
    end: Annotated[Instant | None, Query(alias="to", description="End, not included. Default: now.")] = None,
) -> Period:
    """The period, of whole quarter hours: requests within the same one ask the same question."""
    beyond = end or datetime.now(UTC)
    begin = start or datetime.combine(beyond.astimezone(UTC).date(), time(), UTC)
    if begin > beyond or (begin == beyond and start is not None):
        raise invalid("from", f"{format_timestamp(begin)} is not before to, {format_timestamp(beyond)}")
    first = _EPOCH + -(-(begin - _EPOCH) // _QUARTER) * _QUARTER
    return checked(
        Period(first, max(first, _EPOCH + (beyond - _EPOCH) // _QUARTER * _QUARTER)),
        services.settings.figures_range_limit_days,
    )


@router.get(
    "/efficiency",
    operation_id="getEfficiency",
    summary="Get losses and efficiency of charging",
    openapi_extra=needs("read", only_seen(site=SITE)),
    response_model=models.EfficiencyList,
    responses=_NO_SITE | CSV_RESPONSES,
)
async def efficiency(
    services: WithFigures,
    reading: WithReading,
    sight: WithSight,
    form: AskedMediaType,
    period: Annotated[Period, Depends(_today)],
    of: Annotated[Literal["sites", "fleet"], Query(description="What an item is about.")] = "fleet",
    site: Site = None,
) -> Response:
    """Losses and efficiency of charging over the quarter hours in which AC and DC can be compared, for the fleet or for
    each site: as JSON or CSV. An answer may be a minute old; `asOf` says until when readings are in it."""
    wanted = Wanted(of, (), site, sight)
    ask = partial(_ask, services, reading, wanted, period)
    if sight.is_limited or reading.wanted is not None:
        found, _ = await ask()
    else:
        found, reading.as_of = await services.remembered.get((of, site, period), ask)
    if form == "text/csv":
        model = models.EfficiencyItem
        return await csv_stream(f"efficiency-{of}", columns(model), partial(cells, model), pages_of(found.items))
    return Response(found.model_dump_json(), headers={"Vary": "Accept"}, media_type=form)


async def _ask(
    services: Services, reading: Reading, wanted: Wanted, period: Period
) -> tuple[models.EfficiencyList, datetime | None]:
    """The answer, and as of when it is. Raises 404 for a site without devices, and 422 for too many devices x days."""
    most = int(FOLDED.device_days / max(1.0, (period.end - period.start) / _DAY))
    async with connection(reading) as c:
        known = await closed(c)
        until = min(known.until.values())
        groups = await find_groups(c, wanted, period, most + 1, most)
        await refuse_unknown_site(c, wanted.site)
        own = [(part.kind, part.device, n) for n, group in enumerate(groups) for part in group.parts]
        if len(own) > most:
            raise invalid("from", f"more than {most} devices, the most over this period; narrow site, from or to")
        days = await detached_days(c, KINDS, period) if period.start < period.end else []
        sides = [[*zip(*((id_, n) for kind, id_, n in own if kind is side), strict=True)] for side in (METER, VEHICLE)]
        arguments = [list(column) for side in sides for column in (side or ((), ()))]
        starts = [datetime.combine(day, time(), UTC) for day in days]
        interval_us = round(services.settings.reading_interval_s * 1_000_000)
        async with c.transaction(readonly=True):
            await c.execute(_SESSION)
            rows = await c.fetch(
                efficiency_sql(period),
                *(*arguments, period.start, period.end, until, starts, interval_us, known.hours_until[METER.name]),
            )
    by_key: dict[int, Any] = {row["key"]: row for row in rows}
    items = [_item(group.name, period, until, by_key.get(n, _NOTHING)) for n, group in enumerate(groups)]
    return models.EfficiencyList(detached_days=days, items=items), reading.as_of


def _item(name: str, period: Period, until: datetime, row: Any) -> models.EfficiencyItem:
    ac, dc, drawn = int(row["ac"]), int(row["dc"]), int(row["units"])
    return models.EfficiencyItem(
        id=name or None,
        start=period.start,
        end=period.end,
        as_of=until,
        charge_kwh_ac=kwh_of(ac),
        charge_kwh_dc=kwh_of(dc),
        loss_kwh=kwh_of(ac - dc) if ac else None,
        efficiency=dc / ac if ac else None,
        kwh_ac=kwh_of(drawn),
        compared=ac / drawn if drawn else None,
        quarters=row["quarters"],
        vehicles=row["vehicles"],
    )
