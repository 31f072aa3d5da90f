"""GET /v1/quality: how far the figures of each device can be relied on, the worst devices first.

The rules are those of `api.energy.quality`. The worst devices are known only when all are judged, so a request reads
each device that it concerns, and is limited (`api.read_limit`).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from api import models
from api.as_of import WithReading
from api.csv_format import cells, columns
from api.database import Connection, connection
from api.device_faults import Faults, faults_of
from api.energy.assignments import Assignment, edges_of
from api.energy.buckets import figures, unassigned
from api.energy.coverage import expected
from api.energy.performance import Measured
from api.energy.quality import Order, Place, Quality, place, totals, worst_first
from api.energy.spans import Span
from api.energy.units import US_PER_S, kwh_of
from api.groups import Part, Wanted, assignments_of, find_groups
from api.measured import detached_days, measured
from api.measured_sql import Question
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, Limit, decode_rank, encode_cursor, next_link
from api.patterns import TEXT_PATTERN
from api.period import FiguresPeriod, Period, checked
from api.problems import Problem, invalid
from api.read_limit import ONE_BY_ONE, closed
from api.routing import SITE, needs, only_seen
from api.services import WithFigures, WithSight
from api.sight import Sight
from api.streaming import csv_stream, pages_of
from bridge.contract import KINDS, METER, Kind

router = APIRouter(prefix="/v1", tags=["analytics"])

_US = timedelta(microseconds=1)
_RESPONSES: dict[int | str, dict[str, Any]] = CSV_RESPONSES | {
    404: {"description": "No device is declared at the site"}
}


class _Asked(NamedTuple):
    """One request, with the defaults filled in."""

    sight: Sight
    kind: str | None
    site: str | None
    period: Period
    at: datetime
    """The time of the first page."""
    order: Order
    after: Place | None

    @property
    def as_of(self) -> datetime:
        """The end of the period, or the time of the first page if that was earlier."""
        return min(self.period.end, self.at)


@router.get(
    "/quality",
    operation_id="getQuality",
    summary="Get the quality of the data by device",
    openapi_extra=needs("read", only_seen(site=SITE)),
    response_model=models.QualityPage,
    responses=_RESPONSES,
)
async def quality(
    request: Request,
    services: WithFigures,
    reading: WithReading,
    sight: WithSight,
    period: FiguresPeriod,
    form: AskedMediaType,
    site: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Devices that are declared at this site.")
    ] = None,
    kind: Annotated[Literal["vehicles", "meters"] | None, Query(description="Devices of this kind.")] = None,
    sort: Annotated[Order, Query(description="The figure by which the worst device is first.")] = "severity",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Devices that have reported, are declared or are assigned, the worst first: a page as JSON, or by `Accept:
    text/csv` the whole list, independent of `limit`. `totals` are over all devices, not over the page."""
    asked = _Asked(sight, kind, site, period, datetime.now(UTC), sort, None)
    if cursor is not None:
        asked = _resumed(request, asked, cursor, services.settings.figures_range_limit_days)
    async with connection(reading) as c:
        days = await detached_days(c, KINDS, asked.period)
        devices = await _devices(c, asked, services.settings.reading_interval_s)
    found = worst_first(devices, asked.order, asked.after)
    if form == "text/csv":
        rows = [_item(asked, device) for device in found]
        return await csv_stream("quality", columns(models.Quality), partial(cells, models.Quality), pages_of(rows))
    following = _cursor(asked, found[limit - 1]) if len(found) > limit else None
    page = _page(asked, devices, found[:limit], days, following)
    headers = next_link(request.query_params, following) | {"Vary": "Accept"}
    return JSONResponse(page.model_dump(mode="json"), headers=headers)


def _resumed(request: Request, asked: _Asked, cursor: str, most_days: float) -> _Asked:
    """The request with the period and the instant of the page before, so that all pages are judged alike."""
    found = decode_rank(cursor)
    given = request.query_params
    if ("from" in given and found.start != asked.period.start) or ("to" in given and found.end != asked.period.end):
        raise invalid("cursor", "is of another period")
    if found.order != asked.order:
        raise invalid("cursor", "is of another order")
    period = checked(Period(found.start, found.end), most_days)
    return asked._replace(period=period, at=found.at, after=Place(*found.place))


def _cursor(asked: _Asked, last: Quality) -> str:
    return encode_cursor(*(asked.period.start, asked.period.end, asked.at, asked.order), *place(last, asked.order))


async def _devices(c: Connection, asked: _Asked, default_interval_s: float) -> list[Quality]:
    """Every device that the request concerns. Raises 404 for a site without any, 422 for too many."""
    ids = await _ids(c, asked)
    faults = await faults_of(c, ids, asked.period, asked.as_of, default_interval_s)
    assigned = await assignments_of(c, ids.get(METER, []), asked.period)
    found: list[Quality] = []
    for (kind, id_), own in faults.items():
        question = Question(kind, asked.period, cuts=edges_of(assigned.get(id_, ())))
        read = await measured(c, question, id_, default_interval_s)
        found.append(_judged(asked, Part(kind, id_), read, own, assigned))
    return found


async def _ids(c: Connection, asked: _Asked) -> dict[Kind, list[str]]:
    """The devices by kind, as many as one request may read."""
    groups = await find_groups(c, Wanted("fleet", [], asked.site, asked.sight), asked.period, 1, ONE_BY_ONE.device_days)
    parts = [part for group in groups for part in group.parts if asked.kind in (None, part.kind.plural)]
    if asked.site is not None and not parts:
        wanted = next((kind.name for kind in KINDS if kind.plural == asked.kind), "device")
        raise Problem(404, f"no {wanted} is declared at the site {asked.site}")
    narrow = ("site", "one site") if asked.site is None else ("kind", "fewer devices")
    (await closed(c)).allowance(asked.period).refuse(len(parts), narrow)
    return {kind: [part.device for part in parts if part.kind is kind] for kind in KINDS}


def _judged(
    asked: _Asked, device: Part, read: Measured, faults: Faults, assigned: Mapping[str, Sequence[Assignment]]
) -> Quality:
    period = asked.period
    edges, as_of = [0, period.us(period.end)], period.us(asked.as_of)
    wanted = expected(Span(*edges), read.curve.covered, period.us(asked.at), read.device)
    nobodys = unassigned(read.curve, assigned[device.device], edges)[0] if device.kind is METER else None
    return Quality(
        kind=device.kind.name,
        id=device.device,
        site=faults.site,
        figures=figures(read.curve, edges, wanted)[0],
        unassigned=nobodys,
        conflicts=faults.conflicts,
        implausible=faults.implausible,
        interval_us=read.interval_us,
        seen_at=None if faults.seen_at is None else period.us(faults.seen_at),
        declared_at=None if faults.declared_at is None else period.us(faults.declared_at),
        as_of=as_of,
    )


def _page(
    asked: _Asked, devices: Sequence[Quality], found: Sequence[Quality], days: list[date], following: str | None
) -> models.QualityPage:
    sums = totals(devices)
    return models.QualityPage(
        start=asked.period.start,
        end=asked.period.end,
        as_of=asked.as_of,
        detached_days=days,
        totals=models.QualityTotals(
            devices=sums.devices,
            faulty=sums.faulty,
            silent=sums.silent,
            never_seen=sums.never_seen,
            resets=sums.figures.resets,
            suspect_kwh=kwh_of(sums.figures.suspect),
            conflicts=sums.conflicts,
            implausible=sums.implausible,
            coverage=sums.coverage,
            unassigned_kwh=kwh_of(sums.unassigned),
        ),
        items=[_item(asked, device) for device in found],
        next_cursor=following,
    )


def _item(asked: _Asked, device: Quality) -> models.Quality:
    return models.Quality(
        kind=device.kind,
        id=device.id,
        site=device.site,
        severity=device.severity,
        silent=device.is_silent,
        resets=device.figures.resets,
        suspect_kwh=kwh_of(device.figures.suspect),
        conflicts=device.conflicts,
        implausible=device.implausible,
        coverage=device.coverage,
        unassigned_kwh=None if device.unassigned is None else kwh_of(device.unassigned),
        last_reading_at=None if device.seen_at is None else asked.period.start + device.seen_at * _US,
        age_s=None if device.age_us is None else device.age_us / US_PER_S,
        interval_s=device.interval_us / US_PER_S,
    )
