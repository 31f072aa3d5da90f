"""Hours and days of the local clock, found by stepping through time. Times are microseconds since 1970 UTC."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from simulator.figures import SECOND_US, Span

Bucket = Literal["hour", "day"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP_US = 900 * SECOND_US
"""The offset of every time zone is a multiple of a quarter of an hour."""
_HALF_HOURS = ("Asia/Kolkata", "America/St_Johns", "Asia/Kabul", "Australia/Darwin", "Pacific/Marquesas", "Asia/Tehran")
_CHANGING = (
    *("Europe/Berlin", "America/New_York", "America/Los_Angeles", "Australia/Sydney", "Pacific/Auckland"),
    *("Atlantic/Azores", "America/Santiago", "America/Anchorage", "Asia/Beirut"),
)


def us_of(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


def instant_of(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def edges(period: Span, bucket: Bucket, zone: ZoneInfo) -> list[int]:
    """Where the buckets of a period begin and end: its own edges, and each instant at which the clock shows another
    hour or offset, or for the first time another date."""
    found = [period.start]
    at = period.start // _STEP_US * _STEP_US
    before = _label(at, bucket, zone)
    while (at := at + _STEP_US) < period.end:
        label = _label(at, bucket, zone)
        if label != before and (bucket == "hour" or label > before):
            found.append(at)
            before = label
    return [*found, period.end]


def _label(at: int, bucket: Bucket, zone: ZoneInfo) -> Any:
    local = instant_of(at).astimezone(zone)
    return (local.date(), local.hour, local.utcoffset()) if bucket == "hour" else local.date()


def zones_for(period: Span) -> tuple[ZoneInfo, ZoneInfo]:
    """A zone whose offset is not of whole hours, and one whose clock changes in the year: if there are such, zones in
    which a day begins, and the clock changes, in the period."""

    def merit(zone: ZoneInfo) -> tuple[bool, int]:
        offsets = {instant_of(at).astimezone(zone).utcoffset() for at in period}
        return len(offsets) > 1, min(3, len(edges(period, "day", zone)))

    half, changing = (max(map(ZoneInfo, names), key=merit) for names in (_HALF_HOURS, _CHANGING))
    return half, changing
