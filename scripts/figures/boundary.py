"""A period that begins within an interval (case 4)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.curve import Segment, curve_of, straddling
from api.energy.spans import Span
from api.energy.units import kwh_of
from scripts.figures.canvas import AC, MISSING, PERIOD, Numbers, Picture, outline, power, shown
from scripts.figures.readings import HOUR, MINUTE, QUARTERLY, intervals

_READINGS = intervals([4.0] * 6, 15 * MINUTE, 0)
_FLOW = curve_of(_READINGS, QUARTERLY).flow_in
_OUTSIDE = "#b9d5e6"
_PERIOD = Span(15 * MINUTE // 2, HOUR)


def _reached(at: int) -> float:
    return kwh_of(_FLOW.units(_FLOW.segments[0].start, at))


def _numbers() -> Numbers:
    return {"energy": kwh_of(_FLOW.units(*_PERIOD)), "boundaryKwh": kwh_of(straddling(_FLOW.segments, _PERIOD))}


def _draw(figure: Figure) -> None:
    numbers = _numbers()
    start, end = _PERIOD
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    upper.set_title("energy curve")
    upper.set_ylabel("kWh")
    edges = [segment.start for segment in _FLOW.segments] + [_FLOW.segments[-1].end]
    upper.plot(edges, [_reached(at) for at in edges], color=AC, marker="o", markersize=4)
    upper.vlines([start, end], 0, [_reached(start), _reached(end)], color="black", linewidth=1)
    upper.hlines([_reached(start), _reached(end)], [start, end], 77 * MINUTE, linestyle=":", color="black")
    upper.annotate("", (76 * MINUTE, _reached(end)), (76 * MINUTE, _reached(start)), arrowprops={"arrowstyle": "<->"})
    middle = (_reached(start) + _reached(end)) / 2
    upper.text(75 * MINUTE, middle, f"{shown(numbers['energy'])} kWh", ha="right", va="center")
    upper.set_ylim(0)
    lower.set_title(
        f"intervals of 4 kWh; the period takes {shown(kwh_of(_FLOW.units(start, 15 * MINUTE)))} kWh of the first one, "
        f"boundaryKwh is {shown(numbers['boundaryKwh'])}"
    )
    lower.set_ylabel("kW")
    for segment in _FLOW.segments:
        _draw_interval(lower, segment)
    for axes in (upper, lower):
        axes.axvspan(start, end, color=PERIOD, zorder=0)
    lower.set_xlim(-15 * MINUTE, 80 * MINUTE)
    ticks = [start, *range(0, 76 * MINUTE, 15 * MINUTE)]
    lower.set_xticks(ticks, ["00:07:30", *(f"{at // HOUR:02d}:{at // MINUTE % 60:02d}" for at in ticks[1:])])


def _draw_interval(axes: Axes, segment: Segment) -> None:
    """The interval, with its part of the period darker, and an outline if it is across an edge of the period."""
    power(axes, [segment], _OUTSIDE)
    start, end = max(segment.start, _PERIOD.start), min(segment.end, _PERIOD.end)
    if start < end:
        power(axes, [Segment(start, end, _FLOW.units(start, end))], AC)
        if straddling([segment], _PERIOD):
            outline(axes, [segment], MISSING)
    axes.axvline(segment.end, color="white", linewidth=1)


PICTURE = Picture("A period that begins within an interval", (7.6, 4.0), _numbers, _draw)
