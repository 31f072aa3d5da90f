"""Which devices a figure is made of: the devices of a group, and the meters and assignments of vehicles.

They come from the live states, the device register and the assignments, are read by a key, and no more of them than one
page needs.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from api.database import Connection
from api.energy.assignments import Assignment
from api.energy.spans import Span
from api.live import never_seen
from api.measured_sql import with_neighbours
from api.period import Period
from api.sight import Ids, Sight
from bridge.contract import KIND_OF, KINDS, METER, VEHICLE, Kind

Of = Literal["vehicles", "meters", "sites", "fleet"]


class Part(NamedTuple):
    """What a group takes from a device."""

    kind: Kind
    device: str
    vehicle: str | None = None
    """Of a meter, this vehicle's share alone; None: all that the device measured."""


class Group(NamedTuple):
    """What an item is about: a device, a site, or under an empty name the fleet."""

    name: str
    parts: list[Part]


class Wanted(NamedTuple):
    """Which groups of what a key sees: of these devices, of this site; from the name `first` on."""

    of: Of
    ids: Sequence[str]
    """Sorted, and seen; none: all."""
    site: str | None
    """Seen."""
    sight: Sight
    first: str = ""


# A device is one that has reported, one that is declared, and one that an assignment names.
_DEVICES = """
(SELECT {device} AS id FROM {live} WHERE {device} >= $1 ORDER BY {device} LIMIT $2)
UNION (SELECT id FROM device WHERE kind = '{kind}' AND id >= $1 ORDER BY id LIMIT $2)
UNION (SELECT DISTINCT {device} FROM meter_assignment WHERE {device} >= $1 ORDER BY {device} LIMIT $2)
ORDER BY id LIMIT $2
"""
_UNKNOWN = """
SELECT g.id FROM unnest($1::text[]) AS g(id)
WHERE NOT EXISTS (SELECT FROM {live} WHERE {device} = g.id)
  AND NOT EXISTS (SELECT FROM device d WHERE d.kind = '{kind}' AND d.id = g.id)
  AND NOT EXISTS (SELECT FROM meter_assignment WHERE {device} = g.id)
LIMIT 1
"""
_OF_SITE = "SELECT id FROM device WHERE kind = $1 AND site = $2 AND id >= $3 ORDER BY id LIMIT $4"
_IDS_OF_SITE = "SELECT id FROM device WHERE kind = $1 AND site = $2 AND id = ANY($3)"
_SITES = """
SELECT site, kind, id FROM device WHERE site COLLATE "C" >= $1 ORDER BY site COLLATE "C", kind, id LIMIT $2
"""
_THESE_SITES = """
SELECT site, kind, id FROM device WHERE site COLLATE "C" >= $1 AND kind = ANY($3) AND site = ANY($4)
ORDER BY site COLLATE "C", kind, id LIMIT $2
"""
# An assignment ends where the meter's next one begins.
_FED_BY = """
SELECT DISTINCT a.vehicle_id, a.meter_id FROM meter_assignment a
WHERE a.vehicle_id = ANY($1) AND a.valid_from < $3
  AND NOT EXISTS (SELECT FROM meter_assignment n
                  WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from AND n.valid_from <= $2)
ORDER BY a.vehicle_id, a.meter_id
"""
_ASSIGNMENTS = """
SELECT meter_id, vehicle_id, greatest(valid_from, $2) AS valid_from, least(valid_to, $3) AS valid_to
FROM (SELECT meter_id, vehicle_id, valid_from,
             lead(valid_from) OVER (PARTITION BY meter_id ORDER BY valid_from) AS valid_to
      FROM meter_assignment WHERE meter_id = ANY($1) AND valid_from < $3) AS a
WHERE vehicle_id IS NOT NULL AND coalesce(valid_to, $3) > $2
ORDER BY meter_id, valid_from
"""
_FEEDING = _ASSIGNMENTS.replace(
    "meter_id = ANY($1)",
    "meter_id IN (SELECT a.meter_id FROM meter_assignment a WHERE a.vehicle_id = $1 AND a.valid_from < $3 "
    "AND NOT EXISTS (SELECT FROM meter_assignment n WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from "
    "AND n.valid_from <= $2))",
)


def _sql(text: str, kind: Kind) -> str:
    return text.format(device=kind.id_column, live=kind.live_table, kind=kind.name)


async def find_groups(c: Connection, wanted: Wanted, period: Period, count: int, most: int) -> list[Group]:
    """The next groups by name, up to `count`; the last one may lack devices when there are more than `most` in all.

    Raises 404 for an id that has never reported and is neither declared nor assigned.
    """
    if wanted.of == "sites":
        return (await _sites(c, wanted, most + 1))[:count]
    if wanted.of == "fleet":
        found = [Part(kind, id_) for kind in KINDS for id_ in await _devices(c, kind, wanted, most + 1)]
        return [Group("", found)]
    kind = VEHICLE if wanted.of == "vehicles" else METER
    ids = await _devices(c, kind, wanted, count)
    groups = {id_: Group(id_, [Part(kind, id_)]) for id_ in ids}
    if kind is VEHICLE:
        for vehicle_id, meter_id in await meters_of(c, ids, period):
            groups[vehicle_id].parts.append(Part(METER, meter_id, vehicle_id))
    return list(groups.values())


async def _devices(c: Connection, kind: Kind, wanted: Wanted, count: int) -> list[str]:
    if wanted.ids:
        return (await _named(c, kind, wanted))[:count]
    if wanted.site is not None:
        rows = await c.fetch(_OF_SITE, kind.name, wanted.site, wanted.first, count)
    elif wanted.sight.is_limited:
        rows = await c.fetch(own_devices_sql(kind), wanted.first, count, *wanted.sight.arguments)
    else:
        rows = await c.fetch(_sql(_DEVICES, kind), wanted.first, count)
    return [row["id"] for row in rows]


def own_devices_sql(kind: Kind) -> str:
    """The devices that a limited key sees, as `_DEVICES`; from $3 on the arguments of its sight."""
    sources = [
        Ids(kind, kind.live_table, kind.id_column, ">= $1", limit="$2"),
        Ids(kind, "device", "id", ">= $1", f"kind = '{kind.name}'", "$2"),
        Ids(kind, "meter_assignment", kind.id_column, ">= $1", limit="$2"),
    ]
    return f"{' UNION '.join(source.sql(first=3) for source in sources)} ORDER BY id LIMIT $2"


async def refuse_unknown(c: Connection, kind: Kind, ids: Sequence[str]) -> None:
    """Raise 404 for an id that has never reported and is neither declared nor assigned."""
    unknown = await c.fetchval(_sql(_UNKNOWN, kind), ids)
    if unknown is not None:
        raise never_seen(kind, unknown)


async def _named(c: Connection, kind: Kind, wanted: Wanted) -> list[str]:
    await refuse_unknown(c, kind, wanted.ids)
    ids = set(wanted.ids)
    if wanted.site is not None:
        ids = {row["id"] for row in await c.fetch(_IDS_OF_SITE, kind.name, wanted.site, wanted.ids)}
    return sorted(id_ for id_ in ids if id_ >= wanted.first)


async def _sites(c: Connection, wanted: Wanted, most: int) -> list[Group]:
    if wanted.site is None and not wanted.sight.is_limited:
        rows = await c.fetch(_SITES, wanted.first, most)
    else:
        sites = list(wanted.sight.sites or ()) if wanted.site is None else [wanted.site]
        rows = await c.fetch(_THESE_SITES, wanted.first, most, [kind.name for kind in KINDS], sites)
    return [
        Group(site, [Part(KIND_OF[row["kind"]], row["id"]) for row in own])
        for site, own in groupby(rows, key=lambda row: str(row["site"]))
    ]


async def meters_of(c: Connection, vehicles: Sequence[str], period: Period) -> list[tuple[str, str]]:
    """Each vehicle with each meter that fed it at some time of the period, in order."""
    return [tuple(row) for row in await c.fetch(_FED_BY, vehicles, period.start, period.end)]


async def vehicles_of(c: Connection, meters: Sequence[str], period: Period) -> list[str]:
    """The vehicles that one of the meters fed at some time of the period, in order."""
    rows = await c.fetch(_ASSIGNMENTS, meters, period.start, period.end)
    return sorted({row["vehicle_id"] for row in rows})


async def feeding(c: Connection, vehicle: str, period: Period) -> dict[str, list[Assignment]]:
    """The assignments, to all vehicles, of each meter that fed a vehicle in or around a period; as `assignments_of`."""
    around = with_neighbours(period)
    return _by_meter(await c.fetch(_FEEDING, vehicle, around.start, around.end), period, [])


def has_fed(assignments: Sequence[Assignment], vehicle: str, span: Span) -> bool:
    """Whether a meter with these assignments fed a vehicle at some time of a span."""
    return any(a.vehicle == vehicle and a.start < span.end and a.end > span.start for a in assignments)


async def assignments_of(c: Connection, meters: Sequence[str], period: Period) -> dict[str, list[Assignment]]:
    """The assignments of each meter around a period, in order, in microseconds since its start."""
    around = with_neighbours(period)
    return _by_meter(await c.fetch(_ASSIGNMENTS, meters, around.start, around.end), period, meters)


def _by_meter(rows: Sequence[Any], period: Period, meters: Sequence[str]) -> dict[str, list[Assignment]]:
    found: dict[str, list[Assignment]] = {meter: [] for meter in meters}
    for meter, vehicle, start, end in rows:
        found.setdefault(meter, []).append(Assignment(period.us(start), period.us(end), vehicle))
    return found
