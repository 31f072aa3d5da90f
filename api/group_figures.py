"""The figures of groups of devices by bucket: of many devices in the database, of the others one by one.

A device is folded in the database (`api.fleet`) where it belongs to one group and no assignment of it begins or ends in
the period; the others, and those that the database finds not to be plain, are read as for a single vehicle.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from operator import add
from typing import Literal, NamedTuple, get_args

from api.database import Connection, Source, connection
from api.energy.assignments import Assignment, edges_of
from api.energy.buckets import NOTHING, Figures, figures, share, unassigned
from api.energy.coverage import expected
from api.energy.performance import Measured
from api.energy.spans import Span, union
from api.fleet import Buckets, Folded, fold
from api.groups import Group, Part, assignments_of
from api.measured import detached_days, measured
from api.measured_sql import Question, with_neighbours
from api.period import Period
from api.problems import invalid
from bridge.contract import KINDS, METER, VEHICLE, Kind

MOST_ONE_BY_ONE = 4_000
"""Device-days that are folded one by one for a request."""
_FOLDED_FROM = 4
"""Device-days from which folding in the database takes less time."""
_Role = Literal["own", "share", "unassigned"]


class Row(NamedTuple):
    """A group's figures in one bucket, which add up with those of other devices."""

    ac: Figures = NOTHING
    dc: Figures = NOTHING
    unassigned: int = 0

    def __add__(self, other: "Row") -> "Row":  # type: ignore[override]  # a sum, not a longer tuple
        return Row(self.ac.plus(other.ac), self.dc.plus(other.dc), self.unassigned + other.unassigned)


async def rows_of(
    source: Source, groups: Sequence[Group], buckets: Buckets, default_interval_s: float
) -> dict[str, list[Row]]:
    """The figures of each group by bucket. Raises 422 when too many devices must be folded one by one."""
    takers: dict[tuple[Kind, str], list[tuple[str, Part]]] = defaultdict(list)
    for group in groups:
        for part in group.parts:
            takers[part.kind, part.device].append((group.name, part))
    async with connection(source) as c:
        assigned = await assignments_of(c, [id_ for kind, id_ in takers if kind is METER], buckets.period)
        away = await detached_days(c, KINDS, buckets.period)
    rows = {group.name: [Row()] * (len(buckets.edges) - 1) for group in groups}
    rest = set(takers)
    if len(takers) * buckets.days >= _FOLDED_FROM:
        names: list[tuple[str, _Role]] = [(name, role) for name in rows for role in get_args(_Role)]
        keys = {name: n for n, name in enumerate(names)}
        chosen = _foldable(takers, assigned, buckets.period)
        rest -= set(chosen)
        wanted = {kind: {id_: keys[name] for (own, id_), name in chosen.items() if own is kind} for kind in KINDS}
        for kind, folded in await _folds(source, wanted, buckets, away, default_interval_s):
            rest |= {(kind, id_) for id_ in folded.others}
            for key, own in folded.figures.items():
                name, role = names[key]
                rows[name] = list(map(add, rows[name], _rows_of_role(kind, own, role)))
    if len(rest) * buckets.days > MOST_ONE_BY_ONE:
        raise invalid(
            "from",
            f"{len(rest)} devices must be read one by one, because their registers fall, measures are sent apart, "
            "their assignments change, or they have few readings and no declared intervalS; narrow from, to or site",
        )
    now = buckets.period.us(buckets.now)
    async with connection(source) as c:
        for kind, id_ in sorted(rest, key=lambda device: device[1]):
            own_assignments = assigned.get(id_, [])
            found = await _measured(c, kind, id_, buckets, own_assignments, default_interval_s)
            for name, part in takers[kind, id_]:
                own_rows = _of_device(found, part, own_assignments, [buckets.period.us(e) for e in buckets.edges], now)
                rows[name] = list(map(add, rows[name], own_rows))
    return rows


async def _folds(
    source: Source,
    wanted: Mapping[Kind, Mapping[str, int]],
    buckets: Buckets,
    away: Sequence[date],
    default_interval_s: float,
) -> list[tuple[Kind, Folded]]:
    """The kinds side by side, each on a connection of its own."""

    async def of_kind(kind: Kind) -> Folded:
        if not wanted[kind]:
            return Folded({}, [])
        async with connection(source) as c:
            return await fold(c, kind, wanted[kind], buckets, away, default_interval_s)

    return list(zip(wanted, await asyncio.gather(*map(of_kind, wanted)), strict=True))


def _foldable(
    takers: Mapping[tuple[Kind, str], Sequence[tuple[str, Part]]],
    assigned: Mapping[str, Sequence[Assignment]],
    period: Period,
) -> dict[tuple[Kind, str], tuple[str, _Role]]:
    """The group and the role of each device of one group that has one role throughout the period."""
    around = with_neighbours(period)
    whole = [Span(period.us(around.start), period.us(around.end))]
    found: dict[tuple[Kind, str], tuple[str, _Role]] = {}
    for (kind, id_), own in takers.items():
        if len(own) != 1:
            continue
        name, part = own[0]
        role = "own" if kind is VEHICLE else _role(part, assigned.get(id_, ()), whole)
        if role is not None:
            found[kind, id_] = name, role
    return found


def _role(part: Part, assignments: Sequence[Assignment], whole: Sequence[Span]) -> _Role | None:
    """What a meter adds to its group; None where that changes."""
    if part.vehicle is not None:
        is_whole = [a[:2] for a in assignments if a.vehicle == part.vehicle] == [tuple(whole[0])]
        return "share" if is_whole else None
    if not assignments:
        return "unassigned"
    return "own" if union(a[:2] for a in assignments) == whole else None


def _rows_of_role(kind: Kind, own: Sequence[Figures], role: _Role) -> list[Row]:
    if kind is VEHICLE:
        return [Row(dc=each) for each in own]
    if role == "share":
        return [Row(ac=each._replace(covered=0, expected=0)) for each in own]
    return [Row(ac=each, unassigned=each.net if role == "unassigned" else 0) for each in own]


async def _measured(
    c: Connection,
    kind: Kind,
    id_: str,
    buckets: Buckets,
    assignments: Sequence[Assignment],
    default_interval_s: float,
) -> Measured:
    cuts = [*map(buckets.period.us, buckets.edges), *edges_of(assignments)]
    question = Question(kind, buckets.period, cuts=cuts)
    return await measured(c, question, id_, default_interval_s)


def _of_device(
    found: Measured, part: Part, assigned: Sequence[Assignment], edges: Sequence[int], now: int
) -> list[Row]:
    """What a device adds to a group: its own energy, or of a meter a vehicle's share."""
    if part.vehicle is not None:
        return [Row(ac=own) for own in figures(share(found.curve, assigned, part.vehicle), edges, [])]
    wanted = expected(Span(edges[0], edges[-1]), found.curve.covered, now, found.device)
    own = figures(found.curve, edges, wanted)
    if part.kind is VEHICLE:
        return [Row(dc=each) for each in own]
    return [
        Row(each, unassigned=units) for each, units in zip(own, unassigned(found.curve, assigned, edges), strict=True)
    ]
