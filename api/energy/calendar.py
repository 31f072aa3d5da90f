"""Where the buckets of a period begin in a time zone. Pure.

Days, weeks and months begin with the first instant of a local date, so a day has 23 or 25 hours where the clock
changes. Quarter hours and hours are those of the local clock; a change of the clock ends one.
"""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, assert_never

BucketName = Literal["15m", "hour", "day", "week", "month", "total"]

_SECOND = timedelta(seconds=1)


def edges(start: datetime, end: datetime, bucket: BucketName, zone: tzinfo) -> list[datetime]:
    """The period's start, each instant within it at which a bucket begins, and its end, in UTC.

    The first and the last bucket are cut to the period.
    """
    return [start.astimezone(UTC), *_between(start.astimezone(UTC), end, bucket, zone), end.astimezone(UTC)]


def _between(start: datetime, end: datetime, bucket: BucketName, zone: tzinfo) -> Iterator[datetime]:
    match bucket:
        case "15m":
            return _clock_edges(start, end, timedelta(minutes=15), zone)
        case "hour":
            return _clock_edges(start, end, timedelta(hours=1), zone)
        case "day" | "week" | "month":
            return _date_edges(start, end, bucket, zone)
        case "total":
            return iter(())
    assert_never(bucket)


def _clock_edges(start: datetime, end: datetime, size: timedelta, zone: tzinfo) -> Iterator[datetime]:
    at = start
    while True:
        local = at.astimezone(zone)
        at += size - (local.replace(tzinfo=None) - datetime.min) % size  # noqa: DTZ901
        if at.astimezone(zone).utcoffset() != local.utcoffset():
            at = _clock_change(local.astimezone(UTC), at, zone)
        if at >= end:
            return
        yield at


def _date_edges(
    start: datetime, end: datetime, bucket: Literal["day", "week", "month"], zone: tzinfo
) -> Iterator[datetime]:
    day = start.astimezone(zone).date()
    if bucket == "week":
        day -= timedelta(days=day.weekday())
    elif bucket == "month":
        day = day.replace(day=1)
    last = start
    while (following := _following(day, bucket)) is not None:
        day, at = following, _first_instant(following, zone)
        if at >= end:
            return
        if at > last:  # a date that a zone skipped has no instant
            yield at
            last = at


def _following(day: date, bucket: Literal["day", "week", "month"]) -> date | None:
    """The date on which the next bucket begins; None where the calendar ends."""
    try:
        if bucket == "month":
            return date(day.year + day.month // 12, day.month % 12 + 1, 1)
        return day + timedelta(days=1 if bucket == "day" else 7)
    except (ValueError, OverflowError):
        return None


def _first_instant(day: date, zone: tzinfo) -> datetime:
    """Midnight, the first one where there are two, and the clock's change where it skips midnight."""
    midnight = datetime.combine(day, time(), zone)
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return instant
    return _clock_change(instant - timedelta(days=1), instant, zone)


def _clock_change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The first instant with another offset than `before`; `after` has one. Clocks change at whole seconds."""
    first = before.replace(microsecond=0)
    offset = first.astimezone(zone).utcoffset()
    seconds = range((after - first) // _SECOND + 1)
    return first + _SECOND * bisect_left(
        seconds, True, key=lambda s: (first + s * _SECOND).astimezone(zone).utcoffset() != offset
    )
