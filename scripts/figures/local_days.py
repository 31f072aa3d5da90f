"""Days of time zones, by the hours of the local clock (case 21)."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy import calendar
from api.energy.buckets import Figures, figures
from api.energy.curve import curve_of
from api.energy.spans import Span
from api.energy.units import kwh_of
from scripts.figures.canvas import AC, DC, Numbers, Picture, shown, without_scale
from scripts.figures.readings import DAY, HOUR, MINUTE, QUARTERLY, intervals

_LIGHT = "#4c9bc9"
_DAYS = {
    "Europe/Berlin": [date(2026, 10, 25), date(2026, 3, 29)],
    "Asia/Kolkata": [date(2026, 3, 29)],
    "America/St_Johns": [date(2026, 3, 29)],
}
_CASES = [(zone, day) for zone, days in _DAYS.items() for day in days]
_CURVE = curve_of(intervals([0.25] * (4 * 72), 15 * MINUTE, -DAY + 15 * MINUTE), QUARTERLY)
"""A quarter of a kWh each quarter of an hour, on the day of a case and the days beside it; 0 is its midnight UTC."""


def _hours(zone: str, day: date) -> list[datetime]:
    """The edges of the hours of a local day."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    around = midnight - timedelta(days=1), midnight + timedelta(days=2)
    days = calendar.edges(*around, "day", ZoneInfo(zone))[1:-1]
    start = next(edge for edge in days if edge.astimezone(ZoneInfo(zone)).date() == day)
    return calendar.edges(start, days[days.index(start) + 1], "hour", ZoneInfo(zone))


def _us(instants: list[datetime], day: date) -> list[int]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return [(instant - midnight) // timedelta(microseconds=1) for instant in instants]


def _day(zone: str, day: date) -> Figures:
    edges = _us(_hours(zone, day), day)
    return figures(_CURVE, [edges[0], edges[-1]], [])[0]


def _numbers() -> Numbers:
    return {f"{zone} {day}": kwh_of(_day(zone, day).net) for zone, day in _CASES}


def _draw(figure: Figure) -> None:
    rows = figure.subplots(len(_CASES), 1, sharex=True)
    for axes, (zone, day) in zip(rows, _CASES, strict=True):
        instants = _hours(zone, day)
        kwh = shown(kwh_of(_day(zone, day).net))
        axes.set_title(f"{zone}, {day}: {len(instants) - 1} hours, {kwh} kWh")
        _draw_hours(axes, instants, zone, day)
    ticks = range(-6 * HOUR, 31 * HOUR, 6 * HOUR)
    rows[-1].set_xticks(ticks, [f"{at // HOUR % 24:02d}:00" for at in ticks])
    rows[-1].set_xlabel("UTC")


def _draw_hours(axes: Axes, instants: list[datetime], zone: str, day: date) -> None:
    edges = _us(instants, day)
    names = [instant.astimezone(ZoneInfo(zone)).strftime("%H") for instant in instants]
    hours = list(map(Span._make, pairwise(edges)))
    repeated = [hour for n, hour in enumerate(hours) if names[n] in names[:n]]
    for color, own in ((AC, hours[::2]), (_LIGHT, hours[1::2]), (DC, repeated)):
        axes.fill(
            [at for start, end in own for at in (start, start, end, end)], [0, 1, 1, 0] * len(own), facecolor=color
        )
    for name, (start, end) in zip(names, hours, strict=False):
        axes.text((start + end) / 2, 0.5, name, ha="center", va="center", color="white")
    axes.set_ylim(0, 1)
    without_scale(axes)


PICTURE = Picture("Days of time zones by local hours", (7.6, 4.2), _numbers, _draw)
