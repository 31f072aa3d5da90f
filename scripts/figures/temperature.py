"""The mean of a gauge over measured time (cases 18 and 19)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.curve import Device
from api.energy.gauge import mean
from api.energy.spans import Span
from scripts.figures.canvas import AC, MISSING, PERIOD, Numbers, Picture, clock, shown
from scripts.figures.readings import HOUR, MINUTE

_TWO_HOURS = [(6 * HOUR, 0.0), (8 * HOUR, 20.0), (10 * HOUR, 0.0)]
_TRIPS = [(8 * HOUR + n * MINUTE, 10.0) for n in range(31)] + [(17 * HOUR + n * MINUTE, 40.0) for n in range(11)]


class _Case(NamedTuple):
    points: Sequence[tuple[int, float]]
    interval_us: int
    period: Span
    shown: Span
    tick: int

    def mean(self, start: int, end: int) -> float | None:
        return mean(self.points, start, end, Device(self.interval_us, 1))


_NEAR = Span(5 * HOUR, 11 * HOUR)
_CASES = {
    "07:00 to 09:00": _Case(_TWO_HOURS, 2 * HOUR, Span(7 * HOUR, 9 * HOUR), _NEAR, HOUR),
    "06:30 to 07:30": _Case(_TWO_HOURS, 2 * HOUR, Span(13 * HOUR // 2, 15 * HOUR // 2), _NEAR, HOUR),
    "two trips": _Case(_TRIPS, MINUTE, Span(7 * HOUR, 19 * HOUR), Span(6 * HOUR, 20 * HOUR), 4 * HOUR),
}


def _numbers() -> Numbers:
    return {name: case.mean(*case.period) or 0.0 for name, case in _CASES.items()}


def _draw(figure: Figure) -> None:
    numbers = _numbers()
    for axes, (name, case) in zip(figure.subplots(1, len(_CASES), sharey=True), _CASES.items(), strict=True):
        axes.set_title(f"{name}: {shown(numbers[name])} °C")
        _draw_case(axes, case, numbers[name])


def _draw_case(axes: Axes, case: _Case, value: float) -> None:
    axes.axvspan(*case.period, color=PERIOD, zorder=0)
    for (t0, v0), (t1, v1) in pairwise(case.points):
        if _is_joined(case, t0, t1):
            axes.plot([t0, t1], [v0, v1], color=AC, linewidth=2)
    if len(case.points) < 10:
        axes.plot(*zip(*case.points, strict=True), color=AC, marker="o", markersize=4, linestyle="none")
    axes.hlines(value, *case.period, color=MISSING, linestyle="--")
    axes.text(case.shown.start + (case.shown.end - case.shown.start) / 50, 42, "°C", va="top")
    clock(axes, *case.shown, case.tick)
    axes.tick_params(axis="x", labelrotation=45)
    axes.set_ylim(-2, 44)


def _is_joined(case: _Case, t0: int, t1: int) -> bool:
    """Whether a line joins two readings: between them, where no reading is, there is a mean."""
    return case.mean(t0 + 1, t1 - 1) is not None


PICTURE = Picture("The mean battery temperature", (7.6, 2.8), _numbers, _draw)
