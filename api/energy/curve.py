"""A device's cumulative energy curve in each direction, as segments in which energy flows evenly.

*Interval readings* cover the time since the device's previous one, but not more than 1.5 device intervals: after a
longer gap an interval reading covers one device interval, and the rest of the gap is not covered. The device interval
is that of the reading's UTC day. *Registers* are
judged from one reading to the next: energy is what a register rises above its high-water mark, spread evenly over the
time between the two readings. Where a reading has a register of a direction, the register counts, not the interval;
interval readings between two register readings are part of what the register says.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

from api.energy.interval import DAY_US, day_of
from api.energy.spans import Span, chained, difference, intersection, union

LONGEST_GAP = 3, 2
"""An interval reading reaches back to its predecessor across at most 3/2 device intervals."""
RESET_BELOW = 9, 10
"""A register that falls below 9/10 of its previous value was reset."""
LOOK_BACK_US = 4 * 3600 * 1_000_000
"""The highest value of a register at the begin of a period is that of the readings since so long before it."""
PLAUSIBLE = 11, 10
"""A register may rise by 11/10 of what rated power allows in the time."""


class Device(NamedTuple):
    """What the judgement of a device's readings depends on."""

    interval_us: int
    """Time between two of its readings: the declared one, else that of days without an observed one."""
    rated_kw: float
    by_day: Mapping[int, int] = MappingProxyType({})
    """The observed intervals of UTC days, by their start; empty where one is declared."""
    day_offset: int = 0
    """The start of a UTC day."""

    def interval_at(self, at: int) -> int:
        """The interval of a reading of this time."""
        return self.by_day.get(day_of(at, self.day_offset), self.interval_us) if self.by_day else self.interval_us

    def longest_gap(self, at: int) -> int:
        """How far an interval reading of this time may be from its predecessor and still reach back to it."""
        return self.interval_at(at) * LONGEST_GAP[0] // LONGEST_GAP[1]

    @property
    def shortest_gap_us(self) -> int:
        """What `longest_gap` is at least, at any time."""
        return min([self.interval_us, *self.by_day.values()]) * LONGEST_GAP[0] // LONGEST_GAP[1]

    def most_units(self, us: int) -> int:
        """The most energy that the device is believed to move in a time."""
        return int(self.rated_kw * us / 3600 * PLAUSIBLE[0] / PLAUSIBLE[1] * 1_000_000)


class Reading(NamedTuple):
    """The energy of one reading, in units; None where the reading does not have it.

    Or the sum of several readings, which follow each other without a gap, a fall or a steep rise of a register: its
    energy is exact as long as it is not divided.
    """

    at: int
    interval: int | None = None
    """Signed: + in, - out; of a sum the energy in."""
    register_in: int | None = None
    register_out: int | None = None
    since: int | None = None
    """Of a sum: when the reading before its first one was."""
    interval_out: int = 0
    """Of a sum."""
    is_patchy_in: bool = False
    """Of a sum: whether energy flowed in a part of its time only."""
    is_patchy_out: bool = False


class Segment(NamedTuple):
    """Energy that flowed evenly from `start` to `end`."""

    start: int
    end: int
    units: int

    def until(self, at: int) -> int:
        """The energy that flowed before an instant. Parts of a segment are differences of this: they add up."""
        if at >= self.end:
            return self.units
        return 0 if at <= self.start else self.units * (at - self.start) // (self.end - self.start)


class Flow(NamedTuple):
    """One direction: its segments, in order and without overlap, and what its registers did."""

    segments: list[Segment]
    covered: list[Span]
    """Where the energy is known; suspect energy is not."""
    suspect: list[Segment]
    """Energy that was withheld: it is more than rated power allows. Of a reset the amount is not known: 0."""
    resets: list[int]
    """When a register was found to have been reset."""
    patchy: Sequence[int] = ()
    """The ends of the sums in which energy flowed a part of the time only."""

    def units(self, start: int, end: int) -> int:
        """The energy of [start, end)."""
        return energy_in(self.segments, [Span(start, end)])


_Times = tuple[list[int], list[int]]
"""Starts and ends of spans that are in order and without overlap."""
_units = itemgetter(2)


def overlapping(segments: Sequence[Segment], start: int, end: int) -> Sequence[Segment]:
    """The segments that have a part in [start, end)."""
    first = bisect_left(segments, (start,))
    if first and segments[first - 1].end > start:
        first -= 1
    return segments[first : bisect_left(segments, (end,))]


def energy_in(segments: Sequence[Segment], spans: Sequence[Span]) -> int:
    """The energy that flowed within a set of time; segments and spans are in order, segments without overlap."""
    units = 0
    for start, end in spans:
        if own := overlapping(segments, start, end):
            before, after = own[0].until(start), own[-1].units - own[-1].until(end)
            units += sum(map(_units, own)) - before - after
    return units


def straddling(segments: Sequence[Segment], span: Span) -> int:
    """The whole energy of the segments across one of a span's edges: how they divide is an assumption."""
    own = overlapping(segments, *span)
    edges = {own[0], own[-1]} if own else set[Segment]()
    return sum(s.units for s in edges if s.start < span.start or s.end > span.end)


class Curve(NamedTuple):
    """Both directions of a device."""

    flow_in: Flow
    flow_out: Flow
    covered: list[Span]
    """Where the energy of at least one direction is known and none is withheld."""
    at: list[int]
    """The times of the readings that have energy; of a sum its end."""
    sums: Sequence[Span] = ()
    """The time of each sum, in order. A figure for which one is divided is not exact."""

    @property
    def flows(self) -> tuple[Flow, Flow]:
        return self.flow_in, self.flow_out

    def net(self, inward: Sequence[Segment], outward: Sequence[Segment], spans: Sequence[Span]) -> int | None:
        """Energy in less energy out of these segments, units; None where there is no reading and nothing is covered."""
        units = energy_in(inward, spans) - energy_in(outward, spans)
        if units or intersection(self.covered, spans) or any(s.start <= at < s.end for s in spans for at in self.at):
            return units
        return None

    def resets(self, spans: Sequence[Span]) -> int:
        """How many resets of registers were found in these spans."""
        return sum(s.start < at <= s.end for s in spans for flow in self.flows for at in flow.resets)


def curve_of(readings: Sequence[Reading], device: Device) -> Curve:
    """The curve of readings in the order of time, each time once. Readings without energy are passed over."""
    known = [r for r in readings if not (r.interval is r.register_in is r.register_out is None)]
    at = [reading.at for reading in known]
    starts = _starts(at, [reading.since is not None for reading in known], device)
    spans, inward, outward = _interval_segments(starts, known)
    covered = chained(*spans)
    register_in = [(r.at, r.register_in, r.since is not None) for r in known if r.register_in is not None]
    register_out = [(r.at, r.register_out, r.since is not None) for r in known if r.register_out is not None]
    flow_in = _flow(inward, spans, register_in, device) if register_in else Flow(inward, covered, [], [])
    flow_out = _flow(outward, spans, register_out, device) if register_out else Flow(outward, covered, [], [])
    sums = [Span(r.since, r.at) for r in known if r.since is not None]
    if sums:
        flow_in = flow_in._replace(patchy=[*flow_in.patchy, *(r.at for r in known if r.is_patchy_in)])
        flow_out = flow_out._replace(patchy=[*flow_out.patchy, *(r.at for r in known if r.is_patchy_out)])
    if not register_in and not register_out:
        return Curve(flow_in, flow_out, flow_in.covered, at, sums)
    withheld = union((s.start, s.end) for flow in (flow_in, flow_out) for s in flow.suspect)
    covered = difference(union([*flow_in.covered, *flow_out.covered]), withheld)
    return Curve(flow_in, flow_out, covered, at, sums)


def _interval_segments(starts: Sequence[int], known: Sequence[Reading]) -> tuple[_Times, list[Segment], list[Segment]]:
    """The time that interval readings cover, and their energy in and out."""
    own = [
        (start, reading.at, reading.interval, reading.interval_out or -reading.interval)
        for start, reading in zip(starts, known, strict=True)
        if reading.interval is not None
    ]
    spans = [start for start, _, _, _ in own], [end for _, end, _, _ in own]
    inward = [Segment(start, end, units) for start, end, units, _ in own if units > 0]
    outward = [Segment(start, end, units) for start, end, _, units in own if units > 0]
    return spans, inward, outward


def curve_of_intervals(at: list[int], units: Sequence[int], device: Device) -> Curve:
    """`curve_of` for readings that all have an interval and no register: their times and signed energies."""
    starts = _starts(at, [False] * len(at), device)
    covered = chained(starts, at)
    inward = [Segment(start, end, kwh) for start, end, kwh in zip(starts, at, units, strict=True) if kwh > 0]
    outward = [Segment(start, end, -kwh) for start, end, kwh in zip(starts, at, units, strict=True) if kwh < 0]
    return Curve(Flow(inward, covered, [], []), Flow(outward, covered, [], []), covered, at)


def _starts(at: Sequence[int], is_sum: Sequence[bool], device: Device) -> list[int]:
    """Where the time begins that an interval reading of each of these times covers."""
    starts: list[int] = []
    for first, beyond in _days(at, device):
        interval, longest = device.interval_at(at[first]), device.longest_gap(at[first])
        predecessors = [at[0] - interval, *at[: beyond - 1]] if first == 0 else at[first - 1 : beyond - 1]
        starts += [
            before if linked or now - before <= longest else now - interval
            for before, now, linked in zip(predecessors, at[first:beyond], is_sum[first:beyond], strict=True)
        ]
    return starts


def _days(at: Sequence[int], device: Device) -> Iterator[tuple[int, int]]:
    """The place of the first reading with the same interval as the next ones, and the place behind them."""
    first = 0
    while first < len(at):
        day = day_of(at[first], device.day_offset)
        beyond = bisect_left(at, day + DAY_US, first) if device.by_day else len(at)
        yield first, beyond
        first = beyond


def _flow(own: list[Segment], spans: _Times, register: Sequence[tuple[int, int, bool]], device: Device) -> Flow:
    """One direction of a device: its interval readings where its register says nothing, and its register."""
    first, last = register[0][0], register[-1][0]
    flow = _register_flow(register, device)
    segments = sorted([*(s for s in own if s.end < first or s.end > last), *flow.segments])
    beside = ((start, end) for start, end in zip(*spans, strict=True) if end < first or end > last)
    return flow._replace(segments=segments, covered=union([*beside, *flow.covered]))


def _register_flow(register: Sequence[tuple[int, int, bool]], device: Device) -> Flow:
    """What a register says: its times and values, and which of them end a sum."""
    segments: list[Segment] = []
    suspect: list[Segment] = []
    resets: list[int] = []
    patchy: list[int] = []
    covered: list[tuple[int, int]] = []
    high = register[0][1] if register else 0
    for (start, before, _), (end, value, is_sum) in pairwise(register):
        most = device.most_units(end - start)
        if value * RESET_BELOW[1] < before * RESET_BELOW[0]:
            resets.append(end)
            high = value
            if value > most:
                suspect.append(Segment(start, end, 0))  # how much flowed is not known
                continue
            units = value
        elif value - before > most and value > high and not is_sum:
            suspect.append(Segment(start, end, value - high))
            high = value
            continue
        else:
            if is_sum and before < high < value:
                patchy.append(end)
            units = max(0, value - high)
            high = max(high, value)
        covered.append((start, end))
        if units:
            segments.append(Segment(start, end, units))
    return Flow(segments, union(covered), suspect, resets, patchy)
