"""Compares the figures of the API with those that follow from the readings that are stored.

Of each device it asks about the whole time of its readings, and about a part of it whose edges divide intervals. What
must be answered is computed by `simulator.figures` from the ledger, not from the database, so a figure is also wrong
where a stored row was changed.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from typing import NamedTuple
from zoneinfo import ZoneInfo

import httpx

from bridge.contract import METER, VEHICLE, Kind
from bridge.progress import Stages
from bridge.reading import format_timestamp, parse_timestamp
from simulator.database import Connection
from simulator.endpoints import Api
from simulator.expected_figures import (
    Figures,
    Side,
    bucket_of_meter,
    bucket_of_vehicle,
    changes_of,
    own_side,
    performance,
    session,
    share_of,
)
from simulator.figures import (
    DAY_US,
    Assigned,
    Curve,
    Point,
    Span,
    curve_of,
    due_until,
)
from simulator.findings import Findings
from simulator.ledger_reader import Ledger
from simulator.local_time import Bucket, edges, instant_of, us_of, zones_for
from simulator.questions import Answer, Questions
from simulator.sent import Sent

_HOUR_US = DAY_US // 24
_LONGEST_US = 31 * DAY_US
_TOLERANCE = {"coverage": Fraction(1, 10**6), "dcCoverage": Fraction(1, 10**6), "acCoverage": Fraction(1, 10**6)}
_TOLERANCE_KWH = Fraction(1, 10**9)
_OF_A_DOUBLE = Fraction(1, 2**52)
"""A figure is a double: one of 9 GWh is not exact to 1e-9 kWh."""
_DEFAULT_INTERVAL_S = 60
"""For undeclared devices and an API with default settings."""
_BUCKETS: tuple[Bucket, ...] = ("hour", "day")
_ADDITIVE = {"kwhAc", "kwhDc", "kwhIn", "kwhOut", "suspectKwh", "unassignedKwh", "resets"}


class Sample(NamedTuple):
    """The API that is asked, and about how many vehicles and how many meters; None: about all."""

    api: Api
    devices: int | None


async def compare_figures(
    findings: Findings,
    connection: Connection,
    ledger: Ledger,
    devices: Sequence[int],
    sample: Sample,
    stages: Stages,
) -> None:
    """Add what the API answers wrongly about a sample of these devices.

    Raises `NoAnswer`.
    """
    if ledger.assignments and not ledger.complete:
        return  # of the last assignments of a killed run it is unknown whether the API has them
    async with httpx.AsyncClient(timeout=60) as client:
        comparison = _Comparison(findings, connection, ledger, Questions(client, sample.api))
        for kind, compare in ((VEHICLE, comparison.vehicle), (METER, comparison.meter)):
            own = [ledger.devices[device][1] for device in devices if ledger.devices[device][0] == kind.name]
            asked = _spread(own, sample.devices)
            advance = stages.stage(f"figures of {kind.name}s", len(asked))
            for device in asked:
                await compare(device)
                advance(1)


def _spread(devices: Sequence[str], count: int | None) -> list[str]:
    """So many devices, spread evenly."""
    if count is None or count >= len(devices):
        return list(devices)
    return [devices[n * len(devices) // count] for n in range(count)]


_DueIn = Callable[[int, int, int], Figures]
"""The figures from one instant to another of a device that should be covered until a third."""


class _Asked(NamedTuple):
    """A device, the periods that are asked about, and the time zones."""

    device: str
    whole: Span
    inner: Span
    zones: Sequence[ZoneInfo]


def _asked(device: str, points: Sequence[Point]) -> _Asked:
    """What is asked about a device with these readings."""
    first, last = points[0].at, points[-1].at
    whole = Span(max(first - _HOUR_US, last - _LONGEST_US), last + 1)
    size = whole.end - whole.start
    inner = Span(whole.start + size * 3 // 11, whole.start + size * 8 // 11)
    return _Asked(device, whole, inner, zones_for(whole))


class _Comparison:
    def __init__(self, findings: Findings, connection: Connection, ledger: Ledger, questions: Questions) -> None:
        self._findings, self._questions = findings, questions
        self._sent = Sent(connection, ledger)

    async def vehicle(self, device: str) -> None:
        """Compare the figures of a vehicle and of its share of meters."""
        points = await self._sent.points(device)
        if not points:
            return
        asked = _asked(device, points)
        meters = [
            (meter, self._sent.assignments(meter), await self._sent.points(meter))
            for meter in self._sent.meters_of(device)
        ]
        changes = changes_of(device, (assigned for _, assigned, _ in meters))
        own, shares, rest = _sides(device, points, meters, asked.inner)
        await self._performance(device, own, shares, rest, changes, asked.inner)
        own, shares, rest = _sides(device, points, meters, asked.whole)
        total = await self._performance(device, own, shares, rest, changes, asked.whole)
        await self._energy("vehicles", asked, own.curve, partial(bucket_of_vehicle, own, shares))
        await self._sessions_of_vehicle(asked, own, shares, total)
        self._findings.seen["vehicles whose figures were compared"] += 1

    async def meter(self, device: str) -> None:
        """Compare the figures of a meter, and its sessions in the time in which it feeds no vehicle."""
        points = await self._sent.points(device)
        if not points:
            return
        asked = _asked(device, points)
        own = _side(asked.device, points, asked.whole, METER)
        rest = share_of(asked.device, own.curve, self._sent.assignments(asked.device), None)
        await self._energy("meters", asked, own.curve, partial(bucket_of_meter, own, rest))
        found = await self._questions.sessions("meter", asked.device, asked.whole)
        alone = [item for item in found if item["vehicleId"] is None]
        for item in self._sound_sessions(asked, alone, [rest]):
            self._compare(asked.device, "session", _span(item), item, [session(None, [rest], _span(item))])
        self._findings.seen["meters whose figures were compared"] += 1

    async def _performance(
        self,
        device: str,
        own: Side,
        shares: Sequence[Side],
        rest: Sequence[Side],
        changes: Sequence[int],
        period: Span,
    ) -> Answer:
        """Compare a vehicle's performance; returns it. The API's clock says a time between ours before and after."""
        before = us_of(datetime.now(UTC))
        found = await self._questions.performance(device, period)
        after = us_of(datetime.now(UTC))
        due = [performance(own, shares, rest, changes, period, now) for now in (before, after)]
        self._compare(device, "performance", period, found, due)
        return found

    async def _energy(self, of: str, asked: _Asked, curve: Curve, due_in: _DueIn) -> None:
        """Compare energy by time: in total, and by hour and day of two time zones, whose sums are the total."""
        (total,) = await self._buckets(of, asked, curve, due_in, None)
        for zone, bucket in product(asked.zones, _BUCKETS):
            items = await self._buckets(of, asked, curve, due_in, (bucket, zone))
            for figure in _ADDITIVE & total.keys():
                self._compare_number(
                    asked.device, f"sum of {bucket}s of {zone}, {figure}", _sum(items, figure), total[figure]
                )

    async def _buckets(
        self, of: str, asked: _Asked, curve: Curve, due_in: _DueIn, by: tuple[Bucket, ZoneInfo] | None
    ) -> list[Answer]:
        """Compare the items of a bucket, or the total; returns them."""
        period, where = asked.whole, "energy" if by is None else f"energy by {by[0]} of {by[1]}"
        before = us_of(datetime.now(UTC))
        if by is None:
            items = await self._questions.energy(of, asked.device, period)
        else:
            items = await self._questions.energy(of, asked.device, period, by[0], str(by[1]))
        until = [due_until(curve, period, now) for now in (before, us_of(datetime.now(UTC)))]
        spans = [Span(*pair) for pair in pairwise(list(period) if by is None else edges(period, *by))]
        if [_span(item) for item in items] != spans:
            self._fault(asked.device, f"{where}: its buckets", _texts(spans), _texts(map(_span, items)))
            return items
        for span, item in zip(spans, items, strict=True):
            self._compare(asked.device, where, span, item, [due_in(*span, due) for due in until])
        return items

    async def _sessions_of_vehicle(self, asked: _Asked, own: Side, shares: Sequence[Side], total: Answer) -> None:
        """Compare the sessions of a vehicle; what is outside of them is the rest of the period's energy."""
        items = self._sound_sessions(
            asked, await self._questions.sessions("vehicle", asked.device, asked.whole), [own, *shares]
        )
        rest_dc, rest_ac = own.net(*asked.whole), sum((share.net(*asked.whole) for share in shares), Fraction())
        for item in items:
            span = _span(item)
            part = [share for share in shares if share.id in item["meterIds"]]
            due = session(own, part, span)
            self._compare(asked.device, "session", span, item, [due])
            rest_dc -= due["kwhDc"] or 0
            rest_ac -= due["kwhAc"] or 0
        for figure, name, rest in (("kwhDc", "totalKwhDeliveredDc", rest_dc), ("kwhAc", "totalKwhConsumedAc", rest_ac)):
            outside = Fraction(total[name] or 0) - _sum(items, figure)
            self._compare_number(asked.device, f"{figure} outside of sessions", outside, rest)

    def _sound_sessions(self, asked: _Asked, items: Sequence[Answer], sides: Sequence[Side]) -> list[Answer]:
        """The sessions that lie in the period, have flow, and do not overlap; the others are faults."""
        sound: list[Answer] = []
        end = asked.whole.start
        for item in items:
            span = _span(item)
            if end <= span.start < span.end <= asked.whole.end and any(side.moved(*span) for side in sides):
                sound.append(item)
                end = span.end
            else:
                self._fault(asked.device, "session", "flow, in the period, after the session before", _texts([span]))
        self._findings.seen["sessions compared"] += len(sound)
        return sound

    def _compare(self, device: str, where: str, span: Span, found: Answer, expected: Sequence[Figures]) -> None:
        """Compare an answer with what is expected of it, in one of the ways."""
        for figure in expected[0]:
            due = [each[figure] for each in expected]
            tolerance = _TOLERANCE.get(figure, _TOLERANCE_KWH)
            if not any(_is_equal(found[figure], value, tolerance) for value in due):
                self._fault(device, f"{where} {_texts([span])}, {figure}", due[0], found[figure])
        self._findings.seen["figures compared"] += len(expected[0])

    def _compare_number(self, device: str, figure: str, found: Fraction, due: Fraction | Decimal | int | None) -> None:
        if not _is_equal(found, None if due is None else Fraction(due), _TOLERANCE_KWH):
            self._fault(device, figure, due, found)

    def _fault(self, device: str, figure: str, due: object, found: object) -> None:
        self._findings.fault("figure differs", f"{device} {figure}: {_number(found)}, expected {_number(due)}")


def _is_equal(found: Decimal | Fraction | int | None, due: Fraction | int | None, tolerance: Fraction) -> bool:
    """Whether a figure is as expected. What was not measured may be 0."""
    if due is None or found is None:
        return due is None and not found
    return abs(Fraction(found) - due) <= max(tolerance, abs(Fraction(due)) * _OF_A_DOUBLE)


_Meter = tuple[str, Sequence[Assigned], Sequence[Point]]


def _sides(
    vehicle: str, points: Sequence[Point], meters: Sequence[_Meter], period: Span
) -> tuple[Side, list[Side], list[Side]]:
    """The vehicle, its shares of the meters that fed it in the period, and what these measured for no vehicle."""
    fed = [m for m in meters if any(_overlap(a, period) for a in m[1] if a.vehicle == vehicle)]
    curves = [(meter, _side(meter, own, period, METER).curve, assigned) for meter, assigned, own in fed]
    shares, rest = ([share_of(*one, to) for one in curves] for to in (vehicle, None))
    return _side(vehicle, points, period, VEHICLE), shares, rest


def _side(device: str, points: Sequence[Point], period: Span, kind: Kind) -> Side:
    return own_side(device, curve_of(points, period, kind.rated_kw, _DEFAULT_INTERVAL_S))


def _overlap(assigned: Assigned, period: Span) -> bool:
    return assigned.start < period.end and period.start < assigned.end


def _span(item: Answer) -> Span:
    return Span(us_of(parse_timestamp(item["from"])), us_of(parse_timestamp(item["to"])))


def _sum(items: Iterable[Answer], figure: str) -> Fraction:
    return sum((Fraction(item[figure] or 0) for item in items), Fraction())


def _texts(spans: Iterable[Span]) -> str:
    return ", ".join("/".join(format_timestamp(instant_of(at)) for at in span) for span in spans)


def _number(value: object) -> str:
    return f"{float(value):.12g}" if isinstance(value, Fraction) else str(value)
