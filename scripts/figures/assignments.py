"""An interval that assignments divide (cases 2 and 3)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.assignments import Assignment, Shares, divide
from api.energy.curve import curve_of
from api.energy.spans import Span
from api.energy.units import kwh_of
from scripts.figures.canvas import AC, DC, NOBODY, Numbers, Picture, band, clock, shown, without_scale
from scripts.figures.readings import HOUR, MINUTE, QUARTERLY, intervals

_SEGMENTS = curve_of(intervals([6.0], 15 * MINUTE, 15 * MINUTE), QUARTERLY).flow_in.segments
_BEGIN, _CHANGE, _LATER = -9 * MINUTE, 5 * MINUTE, 24 * MINUTE
_COLOR = {"A": AC, "B": DC}
_CASES = {
    "A until 10:05, then B": [Assignment(_BEGIN, _CHANGE, "A"), Assignment(_CHANGE, _LATER, "B")],
    "A until 10:05, then no vehicle": [Assignment(_BEGIN, _CHANGE, "A")],
    "A until 10:00": [Assignment(_BEGIN, 0, "A")],
}


def _shares(assigned: list[Assignment]) -> Shares:
    return divide(_SEGMENTS, assigned)


def _numbers() -> Numbers:
    numbers: dict[str, float] = {}
    for name, assigned in _CASES.items():
        shares = _shares(assigned)
        for vehicle in "AB":
            numbers[f"{name}: {vehicle}"] = kwh_of(sum(s.units for s in shares.of_vehicle.get(vehicle, [])))
        numbers[f"{name}: unassigned"] = kwh_of(sum(s.units for s in shares.unassigned))
    return numbers


def _draw(figure: Figure) -> None:
    rows = figure.subplots(len(_CASES), 1, sharex=True)
    for axes, (name, assigned) in zip(rows, _CASES.items(), strict=True):
        _draw_case(axes, name, assigned)
    clock(rows[-1], -10 * MINUTE, 25 * MINUTE, 5 * MINUTE, 10 * HOUR)


def _draw_case(axes: Axes, name: str, assigned: list[Assignment]) -> None:
    axes.set_title(name)
    for start, end, vehicle in assigned:
        band(axes, Span(start, end), 1.1, 0.6, _COLOR[vehicle], f"assigned to {vehicle}")
    shares = _shares(assigned)
    parts = [(vehicle, part) for vehicle, own in shares.of_vehicle.items() for part in own]
    for vehicle, part in [*parts, *(("unassigned", part) for part in shares.unassigned)]:
        text = f"{vehicle} {shown(kwh_of(part.units))} kWh"
        band(axes, Span(part.start, part.end), 0, 0.9, _COLOR.get(vehicle, NOBODY), text)
    axes.vlines([_SEGMENTS[0].start, _SEGMENTS[0].end], 0, 0.95, color="black", linewidth=1)
    axes.text(_SEGMENTS[0].end + MINUTE // 2, 0.45, "interval of 6 kWh, 10:00 to 10:15", va="center")
    axes.set_ylim(0, 1.9)
    without_scale(axes)


PICTURE = Picture("An interval that assignments divide", (7.6, 4.4), _numbers, _draw)
