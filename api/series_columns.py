"""The columns of time of a series, and what is known about a measure in one of them. Pure.

A column is known in pieces: from summaries of quarter hours, and from readings. No reading is in two pieces, and no
piece from readings has a reading of a quarter hour that another piece has from its summary.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from api.energy.interval import QUARTER_US
from api.period import Period

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
QUARTER = QUARTER_US * _US


class Columns(NamedTuple):
    """Columns of equal time from `start` on; the first and the last one are cut to the period."""

    period: Period
    start: datetime
    width_us: int
    are_quarters: bool
    """Whether each of them consists of whole quarter hours (UTC), of which there may be summaries."""

    def bounds(self, n: int) -> tuple[datetime, datetime]:
        """Begin and end of the column with the index `n`."""
        start = self.start + n * self.width_us * _US
        return max(self.period.start, start), start + min(self.width_us * _US, self.period.end - start)


def columns_of(period: Period, points: int) -> Columns:
    """At most `points` columns: of whole quarter hours unless they are shorter than one."""
    span = period.us(period.end)
    if span < points * QUARTER_US:
        return Columns(period, period.start, -(-span // points), are_quarters=False)
    start = quarter_before(period.start)
    quarters = -(-(period.end - start) // QUARTER)
    return Columns(period, start, -(-quarters // points) * QUARTER_US, are_quarters=True)


def quarter_before(instant: datetime) -> datetime:
    """The begin of the quarter hour (UTC) in which an instant lies."""
    return instant - (instant - _EPOCH) % QUARTER


class Values(NamedTuple):
    """The readings of a piece of a column that have a measure; the times are those of the first and the last one.

    Of a piece from summaries these are the begins of their quarter hours.
    """

    readings: int
    first: float
    first_at: datetime
    last: float
    last_at: datetime
    least: float
    most: float


def joined(one: Values, other: Values) -> Values:
    """The values of two pieces of a column."""
    first, last = min(one, other, key=_first_at), max(one, other, key=_last_at)
    return Values(
        one.readings + other.readings,
        *(first.first, first.first_at),
        *(last.last, last.last_at),
        min(one.least, other.least),
        max(one.most, other.most),
    )


def _first_at(values: Values) -> datetime:
    return values.first_at


def _last_at(values: Values) -> datetime:
    return values.last_at
