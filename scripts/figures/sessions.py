"""Which time is a session: pauses, driving, recuperation, and a charge at a meter that is not ours."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from api.energy.sessions import Party, Session
from api.energy.spans import Span
from api.energy.units import kwh_of
from scripts.figures.canvas import AC, DC, KNOWN, NOBODY, Numbers, Picture, band, clock, power, shown, without_scale
from scripts.figures.readings import HOUR, MINUTE, feed, intervals, measured

_PERIOD = Span(0, 225 * MINUTE)
_BEGIN = 8 * HOUR
_DRIVE = [-0.6, 0.1, -0.5, 0.3, -0.6]
_MINUTES: list[tuple[list[float], bool]] = [
    ([0.0] * 10, False),
    ([0.8] * 20, True),
    ([0.0] * 10, False),  # a pause within a session
    ([0.8] * 10, True),
    ([0.0] * 5, False),
    (_DRIVE * 6, False),
    ([1.5] * 12, False),  # at a meter that is not ours
    (_DRIVE * 5, False),
    ([0.0] * 5, False),
    ([0.8] * 20, True),
    ([0.0] * 25, False),  # longer than a pause
    ([0.8] * 20, True),
    ([0.0] * 33, False),
]
"""The vehicle's energy of each minute in kWh, and whether it comes from the assigned meter."""


def _party() -> Party:
    dc = [value for values, _ in _MINUTES for value in values]
    ac = [value / 0.9 if at_meter else 0.0 for values, at_meter in _MINUTES for value in values]
    return Party(
        "V",
        measured(intervals(dc, MINUTE, MINUTE)),
        [feed(intervals(ac, MINUTE, MINUTE), _PERIOD)],
        (),
        _PERIOD,
    )


_PARTY = _party()


def _net_dc(span: Span) -> int:
    """The net energy into the battery, units."""
    assert _PARTY.vehicle is not None
    curve = _PARTY.vehicle.curve
    return curve.net(curve.flow_in.segments, curve.flow_out.segments, [span]) or 0


def _numbers() -> Numbers:
    found = _PARTY.sessions()
    inside = sum(session.dc or 0 for session in found)
    whole = _net_dc(_PERIOD)
    numbers = {f"session {n}: kwhDc": kwh_of(session.dc or 0) for n, session in enumerate(found, 1)}
    numbers |= {f"session {n}: kwhAc": kwh_of(s.ac) for n, s in enumerate(found, 1) if s.ac is not None}
    return numbers | {
        "sessions together": kwh_of(inside),
        "outside": kwh_of(whole - inside),
        "totalKwhDeliveredDc": kwh_of(whole),
    }


def _draw(figure: Figure) -> None:
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2, 1.4])
    _draw_vehicle(upper)
    middle.set_title("assigned meter")
    middle.set_ylabel("kW")
    power(middle, _PARTY.feeds[0].inward, AC)
    for session in _PARTY.sessions():
        _draw_session(lower, session)
    inside, outside, whole = (
        shown(_numbers()[name]) for name in ("sessions together", "outside", "totalKwhDeliveredDc")
    )
    lower.set_title(f"sessions, kWh DC: {inside} in all; outside of them {outside}; in the period {whole}")
    without_scale(lower)
    clock(lower, *_PERIOD, 15 * MINUTE, _BEGIN)
    lower.tick_params(axis="x", labelrotation=45)


def _draw_vehicle(axes: Axes) -> None:
    assert _PARTY.vehicle is not None
    flow_in, flow_out = _PARTY.vehicle.curve.flows
    axes.set_title("vehicle: into the battery (above), out of it (below)")
    axes.set_ylabel("kW")
    power(axes, flow_in.segments, DC)
    power(axes, flow_out.segments, DC, sign=-1)
    axes.axhline(0, color="black", linewidth=0.7)


def _draw_session(axes: Axes, session: Session) -> None:
    band(axes, session.span, 0, 1, KNOWN if session.meter_ids else NOBODY, shown(kwh_of(session.dc or 0)))


PICTURE = Picture("Which time is a session", (7.6, 5.0), _numbers, _draw)
