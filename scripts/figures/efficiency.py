"""Which energy efficiency compares (cases 13 to 15)."""

from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.performance import Performance
from api.energy.spans import Span, union
from api.energy.units import kwh_of
from scripts.figures.canvas import AC, DC, MISSING, PERIOD, Numbers, Picture, clock, outline, power, shown
from scripts.figures.readings import HOUR, MINUTE, feed, intervals, measured

_PERIOD = Span(0, 40 * MINUTE)
_CHARGE, _DRIVE, _PARKED, _ELSEWHERE = [0.9] * 10, [-0.6] * 10 + [0.1] * 10, [0.0] * 10, [0.8] * 10


def _performance(dc: list[float | None]) -> Performance:
    meter = intervals([1.0] * 10 + [0.0] * 30, MINUTE, MINUTE)
    vehicle = intervals(dc, MINUTE, MINUTE)
    return Performance(measured(vehicle), [feed(meter, _PERIOD)], (), _PERIOD, _PERIOD.end)


_CASES = {
    "charge and drive": _performance([*_CHARGE, *_DRIVE, *_PARKED]),
    "second charge at another meter": _performance([*_CHARGE, *_DRIVE, *_ELSEWHERE]),
    "vehicle silent for half of the charge": _performance([*_CHARGE[:5], *[None] * 5, *_DRIVE, *_PARKED]),
}


def _numbers() -> Numbers:
    numbers: dict[str, float] = {}
    for name, figures in _CASES.items():
        ac, dc, _ = figures.charge
        numbers |= {
            f"{name}: totalKwhConsumedAc": kwh_of(figures.ac or 0),
            f"{name}: totalKwhDeliveredDc": kwh_of(figures.dc or 0),
            f"{name}: chargeKwhAc": kwh_of(ac),
            f"{name}: chargeKwhDc": kwh_of(dc),
            f"{name}: efficiency": dc / ac,
        }
    return numbers


def _compared(figures: Performance) -> list[Span]:
    """The time that is compared: the minutes in which there is something to compare."""
    minutes = [Span(at, at + MINUTE) for at in range(*_PERIOD, MINUTE)]
    return union(minute for minute in minutes if replace(figures, period=minute).charge.ac)


def _draw(figure: Figure) -> None:
    rows = figure.subplots(len(_CASES), 1, sharex=True)
    numbers = _numbers()
    for axes, (name, figures) in zip(rows, _CASES.items(), strict=True):
        ac, dc, efficiency, net = (
            shown(numbers[f"{name}: {field}"])
            for field in ("chargeKwhAc", "chargeKwhDc", "efficiency", "totalKwhDeliveredDc")
        )
        axes.set_title(f"{name}: {dc} / {ac} = {efficiency}; net DC of the period {net} kWh")
        _draw_case(axes, figures)
    handles, labels = rows[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    clock(rows[-1], *_PERIOD, 5 * MINUTE, 10 * HOUR)


def _draw_case(axes: Axes, figures: Performance) -> None:
    flow_in, flow_out = figures.vehicle.curve.flows
    for n, span in enumerate(_compared(figures)):
        axes.axvspan(*span, color=PERIOD, zorder=0, label="compared" if n == 0 else None)
    power(axes, flow_in.segments, DC, label="DC of the vehicle")
    power(axes, flow_out.segments, DC, sign=-1)
    outline(axes, figures.feeds[0].inward, AC, "AC of the meter")
    for _, gap in figures.gaps:
        axes.axvspan(*gap, facecolor="none", edgecolor=MISSING, hatch="////", label="not covered")
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set_ylabel("kW")


PICTURE = Picture("Which energy efficiency compares", (7.6, 5.4), _numbers, _draw)
