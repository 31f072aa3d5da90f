"""What is covered, and what is a gap (cases 11, 12 and 16)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.coverage import ratio
from api.energy.curve import Device, Reading
from api.energy.spans import Span, difference
from scripts.figures.canvas import KNOWN, MISSING, Numbers, Picture, band, clock, shown, without_scale
from scripts.figures.readings import DAY, EVERY_MINUTE, HOUR, MINUTE, QUARTERLY, intervals, measured

_SECOND = MINUTE // 60


class _Case(NamedTuple):
    readings: Sequence[Reading]
    device: Device
    period: Span
    tick: int
    midnight: int = 0

    @property
    def covered(self) -> list[Span]:
        return measured(self.readings, self.device).curve.covered

    @property
    def coverage(self) -> float:
        return ratio(self.covered, [self.period]) or 0.0


_CASES = {
    "10 readings a second for 15 minutes": _Case(
        intervals([1e-6] * 9000, _SECOND // 10, _SECOND // 10), Device(_SECOND // 10, 500), Span(0, DAY), 3 * HOUR
    ),
    "two readings a minute for half an hour": _Case(
        intervals([0.1] * 60, MINUTE // 2, MINUTE // 2), EVERY_MINUTE, Span(0, HOUR), 10 * MINUTE, 10 * HOUR
    ),
    "a reading each 15 minutes, none for 6 hours": _Case(
        intervals([0.5] * 48 + [None] * 24 + [0.5] * 24, 15 * MINUTE, 15 * MINUTE), QUARTERLY, Span(0, DAY), 3 * HOUR
    ),
}


def _numbers() -> Numbers:
    return {name: case.coverage for name, case in _CASES.items()}


def _draw(figure: Figure) -> None:
    for axes, (name, case) in zip(figure.subplots(len(_CASES), 1), _CASES.items(), strict=True):
        axes.set_title(f"{name}: coverage {shown(case.coverage)}")
        _draw_case(axes, case)


def _draw_case(axes: Axes, case: _Case) -> None:
    pixel = (case.period.end - case.period.start) // 700
    at = sorted({reading.at // pixel * pixel for reading in case.readings})
    lines = [(x, y) for each in at for x, y in ((each, 1.1), (each, 1.6), (each, math.nan))]
    axes.plot(*zip(*lines, strict=True), color="black", linewidth=0.7)
    for span in case.covered:
        is_wide = span.end - span.start > 40 * pixel
        band(axes, span, 0, 0.9, KNOWN, "covered" if is_wide else "")
    for gap in difference([case.period], case.covered):
        band(axes, gap, 0, 0.9, MISSING, "gap", hatched=True)
    axes.text(case.period.start, 1.7, "readings", fontsize=8)
    axes.set_ylim(0, 2.1)
    clock(axes, *case.period, case.tick, case.midnight)
    without_scale(axes)


PICTURE = Picture("Coverage and gaps", (7.6, 4.4), _numbers, _draw)
