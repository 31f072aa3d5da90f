"""GET /v1/sessions: when vehicles were charged, and what flowed. Derived from the readings when it is asked for.

The rules are those of `api.energy.stretches` and `api.energy.sessions` (DESIGN 5). Readings are read only near the time
in which energy flows at a meter or into a vehicle; elsewhere summaries of quarter hours suffice (`Party.near_flow`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from api import models
from api.as_of import WithReading
from api.csv_format import Cell, cells, columns
from api.database import Connection, connection
from api.energy.assignments import Assignment, changes_of, edges_of
from api.energy.performance import Feed, Measured
from api.energy.sessions import ALGORITHM, Party, Session, Unassigned
from api.energy.spans import Span
from api.energy.units import kwh_of
from api.groups import assignments_of, has_fed, meters_of, refuse_unknown, vehicles_of
from api.live import NEVER_SEEN
from api.measured import Readers
from api.measured_sql import Question, with_neighbours
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, Limit, decode_time_and_name, encode_cursor, next_link
from api.patterns import TEXT_PATTERN
from api.period import FiguresPeriod, Period
from api.problems import Problem, invalid
from api.read_limit import ONE_BY_ONE, closed
from api.routing import SITE, needs, only_seen
from api.seen import seen
from api.services import WithFigures, WithSight
from api.sight import Sight
from api.streaming import csv_stream, pages_of
from bridge.contract import METER, VEHICLE, Kind
from bridge.reading import DEVICE_ID_PATTERN

router = APIRouter(prefix="/v1", tags=["analytics"])

_US = timedelta(microseconds=1)
_GAUGES = {
    kind: tuple(m for m in kind.measures if m.name in ("soc", "batteryTemp", "odometerKm", "powerKw"))
    for kind in (VEHICLE, METER)
}
_ALGORITHM = models.Algorithm(name=ALGORITHM[0], version=ALGORITHM[1])
_METERS_OF_SITE = "SELECT id FROM device WHERE kind = 'meter' AND site = $1 ORDER BY id LIMIT $2"
_SITES = "SELECT id, site FROM device WHERE kind = 'meter' AND id = ANY($1)"
_RESPONSES: dict[int | str, dict[str, Any]] = CSV_RESPONSES | {
    404: {"description": NEVER_SEEN[404]["description"] + ", or no meter is declared at the site"}
}


class _Scope(NamedTuple):
    """Whose sessions are asked for."""

    by: Literal["vehicle", "meter", "site"]
    name: str


def _scope(**given: str | None) -> _Scope:
    """The one that is given. Raises 422 unless it is exactly one."""
    scopes = [_Scope(by, name) for by, name in given.items() if name is not None]  # type: ignore[arg-type]
    if len(scopes) != 1:
        raise invalid(scopes[1].by if scopes else "vehicle", "exactly one of vehicle, meter and site is required")
    return scopes[0]


@router.get(
    "/sessions",
    operation_id="listSessions",
    summary="List charging sessions",
    openapi_extra=needs("read", only_seen(vehicle=VEHICLE, meter=METER, site=SITE)),
    response_model=models.SessionPage,
    responses=_RESPONSES,
)
async def list_sessions(
    request: Request,
    services: WithFigures,
    reading: WithReading,
    sight: WithSight,
    form: AskedMediaType,
    period: FiguresPeriod,
    vehicle: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="Of this vehicle.")] = None,
    meter: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="Through this meter.")] = None,
    site: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Through the meters declared at this site.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """The charging sessions of a vehicle, a meter or a site by begin: a page as JSON, or by `Accept: text/csv` the
    whole list, independent of `limit`. Exactly one of `vehicle`, `meter` and `site` is required."""
    scope = _scope(vehicle=vehicle, meter=meter, site=site)
    after = None if cursor is None else decode_time_and_name(cursor)
    async with connection(reading) as c:
        read = await _read(c, sight, scope, period, services.settings.reading_interval_s)
    # In a thread, so that other requests are answered meanwhile: the sessions of years take seconds.
    found = await asyncio.to_thread(_answers, read, period)
    items = [item for item in found if after is None or _position(item) > after]
    if form == "text/csv":
        name = f"sessions-{scope.by}" if scope.by == "site" else f"sessions-{scope.by}-{scope.name}"
        return await csv_stream(name, [*columns(models.Session), "algorithm"], _cells, pages_of(items))
    following = encode_cursor(*_position(items[limit - 1])) if len(items) > limit else None
    page = models.SessionPage(
        algorithm=_ALGORITHM, detached_days=read.detached_days, items=items[:limit], next_cursor=following
    )
    # The default end is now: the next page keeps the end of the first.
    fixed = {"from": period.start.isoformat(), "to": period.end.isoformat()}
    headers = next_link(request.query_params, following, fixed) | {"Vary": "Accept"}
    return JSONResponse(page.model_dump(mode="json"), headers=headers)


class _Read(NamedTuple):
    """What the database says about a scope."""

    parties: list[Party]
    meters: frozenset[str]
    """Only sessions in which one of these took part are asked for, unless it is empty."""
    sites: dict[str, str | None]
    detached_days: list[date]


async def _read(c: Connection, sight: Sight, scope: _Scope, period: Period, default_interval_s: float) -> _Read:
    """What every device measured that may take part. Raises 404 for an unknown device, 422 for too much work."""
    asked = await _asked_meters(c, scope)
    fed = [scope.name] if scope.by == "vehicle" else await vehicles_of(c, asked, period)
    vehicles = await _seen(c, sight, VEHICLE, fed)
    meters = sorted({*asked, *(meter_id for _, meter_id in await meters_of(c, vehicles, period))})
    allowed = (await closed(c)).allowance(period)
    allowed.refuse(len(vehicles) + len(meters), (scope.by, "fewer devices"))
    around = await meters_of(c, vehicles, with_neighbours(period))
    assigned = await assignments_of(c, sorted({*meters, *(meter_id for _, meter_id in around)}), period)
    devices: list[_Device] = [*((VEHICLE, vehicle) for vehicle in vehicles), *((METER, meter) for meter in meters)]
    readers = Readers(
        c, [(_question(kind, name, assigned, period), name) for kind, name in devices], default_interval_s
    )
    found = dict(zip(devices, await readers.read(), strict=True))
    if scope.by != "site" and not any(found[device].is_known for device in devices):
        await refuse_unknown(c, VEHICLE if scope.by == "vehicle" else METER, [scope.name])
    near = await asyncio.to_thread(_near_flow, _parties(vehicles, asked, found, assigned, period))
    refined = await readers.refine({devices.index(device): spans for device, spans in near.items()})
    found |= {devices[n]: measured for n, measured in refined.items()}
    parties = _parties(vehicles, asked, found, assigned, period)
    own_meters = await _seen(c, sight, METER, meters)
    sites = {row["id"]: row["site"] for row in await c.fetch(_SITES, own_meters)}
    return _Read(parties, frozenset(asked), sites, readers.detached_days)


async def _seen(c: Connection, sight: Sight, kind: Kind, ids: Sequence[str]) -> list[str]:
    """Those of the devices that the key sees, in order."""
    return sorted(id_ for _, id_ in await seen(c, sight, [(kind.name, id_) for id_ in ids]))


def _question(kind: Kind, name: str, assigned: "_Assigned", period: Period) -> Question:
    """No sum is divided by a change of the assignment."""
    cuts = edges_of(assigned[name]) if kind is METER else []
    return Question(kind, period, gauges=_GAUGES[kind], cuts=cuts, are_flows_read=True)


async def _asked_meters(c: Connection, scope: _Scope) -> list[str]:
    """The meters that the caller asked for by name or site. Raises 404 for a site without any."""
    if scope.by != "site":
        return [scope.name] if scope.by == "meter" else []
    meters = [row["id"] for row in await c.fetch(_METERS_OF_SITE, scope.name, ONE_BY_ONE.device_days + 1)]
    if not meters:
        raise Problem(404, f"no meter is declared at the site {scope.name}")
    return meters


_Device = tuple[Kind, str]
_Found = Mapping[_Device, Measured]
_Assigned = Mapping[str, Sequence[Assignment]]


def _parties(
    vehicles: Sequence[str], asked: Sequence[str], found: _Found, assigned: _Assigned, period: Period
) -> list[Party]:
    """The vehicles, and the meters that were asked for in the time in which they feed none, or one that the key does
    not see."""
    parties = [_vehicle(vehicle, found, assigned, period) for vehicle in vehicles]
    parties += [_unassigned(meter, found, assigned, period) for meter in asked]
    hidden = (_hidden(meter, found, assigned, vehicles, period) for meter in asked)
    return parties + [party for party in hidden if party.feeds[0].assigned]


def _near_flow(parties: Sequence[Party]) -> dict[_Device, list[Span]]:
    """Of each device, the time in which its readings are needed: near the flows of those with whom it has sessions."""
    near: dict[_Device, list[Span]] = defaultdict(list)
    for party in parties:
        spans = party.near_flow()
        if party.vehicle_id is not None:
            near[VEHICLE, party.vehicle_id] += spans
        for feed in party.feeds:
            near[METER, feed.meter_id] += spans
    return near


def _vehicle(vehicle: str, found: _Found, assigned: _Assigned, period: Period) -> Party:
    """A vehicle with the meters that feed it in the period."""
    span, now = _times(period)
    own = [meter for meter, given in assigned.items() if (METER, meter) in found and has_fed(given, vehicle, span)]
    feeds = [Feed(meter, found[METER, meter], vehicle, assigned[meter], span, now) for meter in own]
    return Party(vehicle, found[VEHICLE, vehicle], feeds, changes_of(vehicle, assigned.values()), span)


def _unassigned(meter: str, found: _Found, assigned: _Assigned, period: Period) -> Party:
    """A meter in the time in which it feeds no vehicle."""
    span, now = _times(period)
    return Party(None, None, [Unassigned(meter, found[METER, meter], "", assigned[meter], span, now)], (), span)


def _hidden(meter: str, found: _Found, assigned: _Assigned, vehicles: Sequence[str], period: Period) -> Party:
    """A meter in the time in which it feeds a vehicle that the key does not see, as if it were alone."""
    own = [a if a.vehicle in vehicles else a._replace(vehicle="") for a in assigned[meter]]
    feed = Feed(meter, found[METER, meter], "", own, *_times(period))
    return Party(None, None, [feed], (), _times(period)[0])


def _times(period: Period) -> tuple[Span, int]:
    return Span(0, period.us(period.end)), period.us(datetime.now(UTC))


def _answers(read: _Read, period: Period) -> list[models.Session]:
    """The sessions that are asked for, in the order of the list."""
    sessions = (session for party in read.parties for session in party.sessions())
    chosen = (s for s in sessions if not read.meters or not read.meters.isdisjoint(s.meter_ids))
    return sorted((_answer(session, read.sites, period) for session in chosen), key=_position)


def _answer(session: Session, sites: Mapping[str, str | None], period: Period) -> models.Session:
    """A session as it is answered."""
    at = {sites.get(meter_id) for meter_id in session.meter_ids}
    return models.Session(
        start=period.start + session.span.start * _US,
        end=period.start + session.span.end * _US,
        vehicle_id=session.party.vehicle_id,
        meter_ids=session.meter_ids,
        site=at.pop() if len(at) == 1 else None,
        kwh_ac=None if session.ac is None else kwh_of(session.ac),
        kwh_dc=None if session.dc is None else kwh_of(session.dc),
        efficiency=session.efficiency,
        peak_kw=session.peak_kw,
        mean_kw=session.mean_kw,
        soc_from=session.at_begin("soc"),
        soc_to=session.at_end("soc"),
        battery_temp_from=session.at_begin("batteryTemp"),
        battery_temp_to=session.at_end("batteryTemp"),
        odometer_km=session.at_begin("odometerKm"),
        coverage=session.coverage,
        open_start=session.is_open_at_start,
        open_end=session.is_open_at_end,
        resets=session.resets,
        suspect_kwh=kwh_of(session.suspect),
        divided_kwh=kwh_of(session.divided),
    )


def _position(item: models.Session) -> tuple[datetime, str]:
    """The place in the list. A vehicle's sessions do not overlap, nor do the unassigned ones of a meter."""
    return item.start, f"vehicle:{item.vehicle_id}" if item.vehicle_id else f"meter:{item.meter_ids[0]}"


def _cells(item: models.Session) -> list[Cell]:
    """An item in the columns of its model, and the algorithm."""
    return [*cells(models.Session, item), f"{_ALGORITHM.name}/{_ALGORITHM.version}"]
