"""The half-open period [from, to) of a query."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.problems import invalid
from api.services import WithServices
from bridge.reading import DEVICE_ID_PATTERN, format_timestamp, parse_timestamp

DEFAULT_SPAN = timedelta(hours=24)
_US = timedelta(microseconds=1)
# An unescaped "+" in a query string means a blank; in an offset it can only be meant as a plus.
_unescaped_offset = re.compile(r" (?=\d\d:\d\d$)").sub


# asyncpg encodes the first and the last datetime as infinity.
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def parse_instant(value: object) -> datetime:
    """An RFC 3339 timestamp of a query. Raises a pydantic error."""
    instant = parse_timestamp(_unescaped_offset("+", value) if isinstance(value, str) else value)
    if not EARLIEST <= instant <= LATEST:
        raise PydanticCustomError("timestamp", "Input should be from 0001-01-02 to 9999-12-30")
    return instant


Instant = Annotated[
    datetime,
    PlainValidator(parse_instant),
    PlainSerializer(format_timestamp),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-02-10T10:15:00Z"]}),
]
"""An RFC 3339 timestamp with an offset."""


def _split(values: object) -> object:
    return [part for value in values for part in str(value).split(",")] if isinstance(values, list) else values


CommaSeparated = BeforeValidator(_split)
"""A list parameter may be repeated, may have several values separated by commas, or both."""

DeviceId = Annotated[str, Path(pattern=DEVICE_ID_PATTERN, examples=["EV_002"])]


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to, and not including, `end`."""

    start: datetime
    end: datetime

    def days_sql(self, column: str = "ts") -> str:
        """A condition on a column for the UTC days of the period, with constants: these prune partitions when the
        statement is planned, which the exact bounds, being parameters, do not.
        """
        beyond = self.end.astimezone(UTC).date() + timedelta(days=1)
        first = self.start.astimezone(UTC).date()
        return f"{column} >= '{first} 00:00+00' AND {column} < '{beyond} 00:00+00'"

    def has_day(self, day: date) -> bool:
        """Whether a part of this UTC day is in the period."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return start < self.end and self.start < start + timedelta(days=1)

    def us(self, instant: datetime) -> int:
        """Microseconds since the start."""
        return (instant - self.start) // _US

    def elapsed_s(self, now: datetime) -> float:
        """Seconds of the period before `now`."""
        return max(0.0, (min(self.end, now) - self.start).total_seconds())


async def _any_period(
    start: Annotated[
        Instant | None, Query(alias="from", description="Begin, included. Default: 24 hours before `to`.")
    ] = None,
    end: Annotated[Instant | None, Query(alias="to", description="End, not included. Default: now.")] = None,
) -> Period:
    end = end or datetime.now(UTC)
    try:
        start = start or end - DEFAULT_SPAN
    except OverflowError:
        raise invalid("to", "no day is before it") from None
    if start >= end:
        raise invalid("from", f"{format_timestamp(start)} is not before to, {format_timestamp(end)}")
    return Period(start, end)


AnyPeriod = Annotated[Period, Depends(_any_period)]
"""A period of any length: the question has a limit of its own."""


async def _period(services: WithServices, period: AnyPeriod) -> Period:
    return checked(period, services.settings.query_range_limit_days)


async def _figures_period(services: WithServices, period: AnyPeriod) -> Period:
    return checked(period, services.settings.figures_range_limit_days)


def checked(period: Period, most_days: float) -> Period:
    """The period itself. Raises 422 when it is too long."""
    if period.end - period.start > timedelta(days=most_days):
        raise invalid("from", f"the period exceeds {most_days:g} days")
    return period


AskedPeriod = Annotated[Period, Depends(_period)]
"""Of a history."""
FiguresPeriod = Annotated[Period, Depends(_figures_period)]
"""Of figures, which summaries may stand for: it may be longer."""
