"""What is counted of a register (cases 5 to 8)."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.curve import Flow, curve_of, energy_in
from api.energy.spans import Span
from api.energy.units import kwh_of
from scripts.figures.canvas import AC, KNOWN, MISSING, NOBODY, Numbers, Picture, band, shown, without_scale
from scripts.figures.readings import EVERY_MINUTE, MINUTE, import_register

_PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
_CASES: dict[str, Sequence[float | None]] = {
    "lost reading": [100.0, 101.0, None, 103.5],
    "reset": [17.0, 17.6, 0.2, 0.9],
    "jitter": [10.0, 9.9, 9.8, 10.0, 10.1],
    "jump": [10.0, 9334.0, 9334.1],
}


def _flow(name: str) -> Flow:
    return curve_of(import_register(_CASES[name]), EVERY_MINUTE).flow_in


def _numbers() -> Numbers:
    numbers: dict[str, float] = {}
    for name in _CASES:
        flow = _flow(name)
        numbers[name] = kwh_of(sum(s.units for s in flow.segments))
        numbers[f"{name}: suspectKwh"] = kwh_of(sum(s.units for s in flow.suspect))
        numbers[f"{name}: resets"] = len(flow.resets)
    return numbers


def _title(name: str) -> str:
    numbers = _numbers()
    withheld, resets = numbers[f"{name}: suspectKwh"], numbers[f"{name}: resets"]
    title = f"{name}: {shown(numbers[name])} kWh"
    title += f", suspectKwh {shown(withheld)}" if withheld else ""
    return title + (f", resets {resets:g}" if resets else "")


def _draw(figure: Figure) -> None:
    panels = figure.subplots(4, 2, height_ratios=[3, 1, 3, 1])
    for n, name in enumerate(_CASES):
        row, column = n // 2 * 2, n % 2
        readings = [(i * MINUTE, value) for i, value in enumerate(_CASES[name]) if value is not None]
        _draw_register(panels[row, column], _title(name), readings)
        _draw_counted(panels[row + 1, column], _flow(name), [at for at, _ in readings])


def _draw_register(axes: Axes, title: str, readings: Sequence[tuple[int, float]]) -> None:
    axes.set_title(title)
    axes.plot(*zip(*readings, strict=True), color=AC, marker="o", markersize=4)
    for at, value in readings:
        axes.annotate(f"{value}", (at, value), (0, 6), textcoords="offset points", ha="center", bbox=_PLAIN)
    axes.margins(x=0.1, y=0.35)
    axes.set_xticks([])
    axes.set_ylabel("kWh")


def _draw_counted(axes: Axes, flow: Flow, at: Sequence[int]) -> None:
    """What is counted between each two readings."""
    for span in map(Span._make, pairwise(at)):
        withheld = energy_in(flow.suspect, [span])
        if withheld:
            band(axes, span, 0, 1, MISSING, "withheld", hatched=True)
        else:
            units = flow.units(*span)
            reset = "reset " if span.end in flow.resets else ""
            band(axes, span, 0, 1, KNOWN if units else NOBODY, f"{reset}+{shown(kwh_of(units))}")
    axes.margins(x=0.1)
    axes.set_xticks(at, [f"10:{each // MINUTE:02d}" for each in at])
    without_scale(axes)


PICTURE = Picture("What is counted of a register", (7.6, 5.6), _numbers, _draw)
