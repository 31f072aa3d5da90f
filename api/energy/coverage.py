"""Coverage: the part of the elapsed time in which energy is known."""

from collections.abc import Sequence

from api.energy.curve import LONGEST_GAP, Device
from api.energy.spans import Span, duration, intersection


def expected(period: Span, covered: Sequence[Span], now: int, device: Device) -> list[Span]:
    """The part of a period that should be covered by now.

    The time since the last reading is not expected yet while the next one is not overdue.
    """
    end = min(period.end, now)
    last = max((span.end for span in covered if span.start < end), default=None)
    if last is not None and last < end and (now - last) * LONGEST_GAP[1] <= device.interval_at(last) * LONGEST_GAP[0]:
        end = last
    return [Span(period.start, end)] if end > period.start else []


def ratio(covered: Sequence[Span], wanted: Sequence[Span]) -> float | None:
    """Covered time / wanted time; None when nothing is wanted."""
    whole = duration(wanted)
    return duration(intersection(covered, wanted)) / whole if whole else None
