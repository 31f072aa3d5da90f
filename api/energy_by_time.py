"""GET /v1/analytics/energy: the energy of vehicles, meters, sites or the fleet by day, hour, ... in any time zone.

The figures are made from the readings of each device (`api.measured`), which are read once per request; a request is
limited by `api.read_limit.FOLDED`.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api import models
from api.as_of import WithReading
from api.csv_format import cells, columns
from api.database import Connection, connection
from api.energy import calendar
from api.energy.buckets import Figures
from api.energy.calendar import BucketName
from api.energy.units import kwh_of
from api.fleet import Buckets
from api.group_figures import Row, rows_of
from api.groups import Group, Of, Wanted, find_groups
from api.live import NEVER_SEEN
from api.measured import detached_days
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, decode_position, encode_cursor, next_link
from api.patterns import TEXT_PATTERN
from api.period import CommaSeparated, FiguresPeriod, Period, checked
from api.problems import Problem, invalid
from api.read_limit import FOLDED, closed
from api.register_models import TimeZone
from api.replicas.reading import Reading
from api.routing import SITE, needs, only_seen
from api.seen import refuse_unseen
from api.services import WithFigures, WithSight
from api.streaming import CSV_PAGE, Page, csv_stream
from bridge.contract import KINDS, Kind
from bridge.reading import DEVICE_ID_PATTERN

router = APIRouter(prefix="/v1/analytics", tags=["analytics"])

_LONGEST_DAYS: dict[BucketName, int] = {"15m": 400, "hour": 1_600}
_MOST_IDS = 200

ItemLimit = Annotated[int, Query(ge=1, le=10_000, description="Items per page.")]
Ids = Annotated[
    list[Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]],
    CommaSeparated,
    Query(alias="id", max_length=_MOST_IDS, description="Only these, repeated or separated by commas."),
]
Site = Annotated[
    str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Devices that are declared at this site.")
]
Bucket = Annotated[BucketName, Query(description="Weeks begin on Monday. `total`: the whole period.")]
Zone = Annotated[TimeZone, Query(description="IANA time zone in which buckets begin.")]


class _Asked(NamedTuple):
    """One request, with the defaults filled in."""

    wanted: Wanted
    period: Period
    edges: Sequence[datetime]
    skip: int
    """Buckets of the first group that were on the page before."""
    limit: int

    @property
    def buckets(self) -> int:
        return len(self.edges) - 1


@router.get(
    "/energy",
    operation_id="getEnergy",
    summary="Get energy by time",
    openapi_extra=needs("read", only_seen(site=SITE)),
    response_model=models.EnergyPage,
    responses=NEVER_SEEN | CSV_RESPONSES,
)
async def energy(
    request: Request,
    services: WithFigures,
    reading: WithReading,
    sight: WithSight,
    form: AskedMediaType,
    period: FiguresPeriod,
    of: Annotated[Of, Query(description="What an item is about.")],
    ids: Ids = [],  # noqa: B006
    site: Site = None,
    bucket: Bucket = "total",
    tz: Zone = "UTC",
    cursor: Cursor = None,
    limit: ItemLimit = 1_000,
) -> Response:
    """Energy of vehicles, meters, sites or the fleet, by id or site and time: a page as JSON, or with
    `Accept: text/csv` the whole list, independent of `limit`."""
    if ids and of in ("sites", "fleet"):
        raise invalid("id", f"names vehicles or meters; of={of} is narrowed by site")
    await refuse_unseen(services.pool, sight, "id", "vehicle" if of == "vehicles" else "meter", ids)
    first, at, about = "", None, _about(of, ids, site)
    if cursor is not None:
        period, first, at = _resumed(request, period, cursor, about, services.settings.figures_range_limit_days)
    _refuse_fine(period, bucket)
    edges = calendar.edges(period.start, period.end, bucket, ZoneInfo(tz))
    asked = _Asked(Wanted(of, sorted(set(ids)), site, sight, first), period, edges, _skip(edges, at), limit)
    if form == "text/csv":
        return await _csv(reading, asked, services.settings.reading_interval_s)
    items, following = await _page(reading, asked, services.settings.reading_interval_s)
    async with connection(reading) as c:
        days = await detached_days(c, KINDS, period)
    next_cursor = None if following is None else encode_cursor(period.start, period.end, *following, about)
    headers = next_link(request.query_params, next_cursor) | {"Vary": "Accept"}
    page = models.EnergyPage(detached_days=days, items=items, next_cursor=next_cursor)
    return Response(page.model_dump_json(), headers=headers, media_type=form)


async def _csv(reading: Reading, asked: _Asked, default_interval_s: float) -> Response:
    """All items from the first one that is asked for. A page consists of whole groups, so that each is read once."""
    whole = asked.buckets * max(1, CSV_PAGE // asked.buckets)

    async def page(after: tuple[str, datetime] | None) -> Page[models.EnergyItem, tuple[str, datetime]]:
        name, skip = asked.wanted.first, asked.skip
        if after is not None:
            name, skip = after[0], _skip(asked.edges, after[1])
        part = asked._replace(wanted=asked.wanted._replace(first=name), skip=skip, limit=whole - skip)
        return await _page(reading, part, default_interval_s)

    model = models.EnergyItem
    return await csv_stream(f"energy-{asked.wanted.of}", columns(model), partial(cells, model), page)


def _about(of: Of, ids: Sequence[str], site: str | None) -> str:
    """What a list is about, in a few characters: a cursor of another list would skip some of its items."""
    asked = json.dumps([of, sorted(set(ids)), site])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _resumed(
    request: Request, period: Period, cursor: str, about: str, most_days: float
) -> tuple[Period, str, datetime]:
    """The period of the page before, and the name and begin of the item with which this one begins.

    The default end is now: without this each page would divide another period.
    """
    found = decode_position(cursor)
    if found.about != about:
        raise invalid("cursor", "is of a list with another of, id or site")
    given = request.query_params
    if ("from" in given and found.start != period.start) or ("to" in given and found.end != period.end):
        raise invalid("cursor", "is of another period")
    return checked(Period(found.start, found.end), most_days), found.name, found.at


def _skip(edges: Sequence[datetime], at: datetime | None) -> int:
    """How many buckets begin before an instant, at which one begins."""
    if at is None:
        return 0
    n = bisect_left(edges, at)
    if edges[n] != at:
        raise invalid("cursor", "is of another bucket or time zone")
    return n


async def refuse_unknown_site(c: Connection, site: str | None) -> None:
    """Raise 404 for a site without devices: a sum of nothing would look like a site without energy."""
    if site is not None and not await c.fetchval("SELECT EXISTS (SELECT FROM device WHERE site = $1)", site):
        raise Problem(404, f"no device is declared at the site {site}")


def _refuse_fine(period: Period, bucket: BucketName) -> None:
    """Raise 422 when a period has too many buckets."""
    longest = _LONGEST_DAYS.get(bucket)
    if longest is not None and period.end - period.start > timedelta(days=longest):
        raise invalid(
            "bucket", f"the period is longer than {longest:,} days, the most for {bucket}; ask for coarser ones"
        )


async def _page(
    reading: Reading, asked: _Asked, default_interval_s: float
) -> tuple[list[models.EnergyItem], tuple[str, datetime] | None]:
    """The items, and the name and begin of the one after them. Raises 422 when one item needs too many devices."""
    async with connection(reading) as c:
        until = await closed(c)
        allowed = until.allowance(asked.period, FOLDED)
        allowed.refuse(1, ("from", "a shorter period"))
        most = allowed.devices
        count = min(most, -(-(asked.skip + asked.limit) // asked.buckets))
        found = await find_groups(c, asked.wanted, asked.period, count + 1, most)
        await refuse_unknown_site(c, asked.wanted.site)
    groups = _affordable(found[:count], most)
    if found and not groups:
        raise _too_many(asked, most)
    buckets = Buckets(asked.edges, until, datetime.now(UTC))
    rows = await rows_of(reading, groups, buckets, default_interval_s)
    skip = asked.skip if found and found[0].name == asked.wanted.first else 0
    places = [(group.name, n) for group in groups for n in range(asked.buckets)][skip:]
    items = [_item(asked, name, n, rows[name][n]) for name, n in places[: asked.limit]]
    if len(places) > asked.limit:
        name, n = places[asked.limit]
        return items, (name, asked.edges[n])
    return items, (found[len(groups)].name, asked.edges[0]) if len(found) > len(groups) else None


def _affordable(groups: Sequence[Group], most: int) -> list[Group]:
    """The first groups, as far as they have no more devices together."""
    devices: set[tuple[Kind, str]] = set()
    chosen: list[Group] = []
    for group in groups:
        devices |= {part[:2] for part in group.parts}
        if len(devices) > most:
            break
        chosen.append(group)
    return chosen


def _too_many(asked: _Asked, most: int) -> Problem:
    wanted = asked.wanted
    narrower = {"vehicles": "from or to", "meters": "from or to"}.get(wanted.of, "site, from or to")
    return invalid(
        "site" if wanted.of in ("sites", "fleet") and wanted.site is None else "from",
        f"one item is made of more than {most} devices, the most whose energy of this period one answer is made of; "
        f"narrow {narrower}",
    )


def _item(asked: _Asked, name: str, n: int, row: Row) -> models.EnergyItem:
    of, ac, dc = asked.wanted.of, row.ac, row.dc
    both, through = ac.plus(dc), dc if of == "vehicles" else ac
    return models.EnergyItem(
        id=name or None,
        start=asked.edges[n],
        end=asked.edges[n + 1],
        kwh_ac=_kwh(ac, ac.net),
        kwh_dc=_kwh(dc, dc.net),
        kwh_in=_kwh(through, through.inward),
        kwh_out=_kwh(through, through.outward),
        coverage=both.covered / both.expected if both.expected else None,
        boundary_kwh=kwh_of(both.boundary),
        suspect_kwh=kwh_of(both.suspect),
        unassigned_kwh=None if of == "vehicles" else _kwh(ac, row.unassigned),
        resets=both.resets,
    )


def _kwh(figures: Figures, units: int) -> float | None:
    return kwh_of(units) if figures.measured else None
