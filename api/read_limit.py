"""How much one request may read: the one limit of all figures.

A day of readings costs far more than a day of summaries of quarter hours. So the days that the keeper has not
summarized yet are limited apart from the days in all.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from api.database import Connection
from api.period import Period
from api.problems import invalid


class Limits(NamedTuple):
    """Days of a period x devices, each device at least one day."""

    device_days: int
    readings: int
    """Of these, the days that are read as readings."""


ONE_BY_ONE = Limits(8_000, 400)
"""Of devices that are read one by one: a year of twenty devices."""
FOLDED = Limits(100_000, 1_000)
"""Of devices that are folded in the database."""
_DAY = timedelta(days=1)
_CLOSED = """
SELECT kind, greatest(closed_until, '0001-01-02 00:00+00'),
       greatest(least(closed_until, composed_until), '0001-01-02 00:00+00'),
       greatest(least(closed_until, composed_until, six_hours_until), '0001-01-02 00:00+00')
FROM quarter_mark
"""
_LEAST_OPEN_DAYS = 0.02
"""The quarter hours at the edges of a period, and the last ones, are made from readings."""


class Closed(NamedTuple):
    """Until when the keeper has summarized quarter hours, by kind."""

    until: Mapping[str, datetime]
    hours_until: Mapping[str, datetime]
    """Until when it has composed hours of them."""
    six_hours_until: Mapping[str, datetime]
    """Until when it has composed six hours of these."""

    def allowance(self, period: Period, limits: Limits = ONE_BY_ONE) -> "Allowance":
        """What a request about this period costs."""
        elapsed = min(period.end, datetime.now(UTC))
        open_days = max(0.0, (elapsed - max(period.start, min(self.until.values()))) / _DAY)
        return Allowance((period.end - period.start) / _DAY, open_days, limits)


async def closed(c: Connection) -> Closed:
    """What the keeper has summarized; the first instant that is accepted, if nothing."""
    rows = await c.fetch(_CLOSED)
    return Closed(*({row[0]: row[n] for row in rows} for n in (1, 2, 3)))


class Allowance(NamedTuple):
    """What a request about a period costs for each device, in days."""

    days: float
    """Of the period."""
    open_days: float
    """Of these, the elapsed ones that the keeper has not summarized."""
    limits: Limits = ONE_BY_ONE

    @property
    def devices(self) -> int:
        """How many devices a request may read over the period; 0 when it is too long for any."""
        most = self.limits.device_days / max(1.0, self.days)
        return int(min(most, self.limits.readings / max(_LEAST_OPEN_DAYS, self.open_days)))

    def refuse(self, devices: int, narrow: tuple[str, str]) -> None:
        """Raise 422 when so many devices are too much; `narrow` is the parameter that says which devices, and advice.

        The problem names `from` instead where the same devices could be read over one day.
        """
        if devices <= self.devices:
            return
        field, advice = ("from", "a shorter period") if devices <= self.limits.readings else narrow
        raise invalid(field, f"{self._work(devices)}; ask for {advice}")

    def _work(self, devices: int) -> str:
        most = self.limits.device_days
        count = f"{devices} devices" if devices <= most else f"more than {most} devices"
        if devices * max(1.0, self.days) > most:
            days = f"{self.days:.1f} days" if self.days > 1 else "up to a day, which counts as one,"
            return f"{count} over {days} are more than {most} device-days"
        return (
            f"{count} over {self.open_days:.1f} days that the keeper has not summarized are more than "
            f"{self.limits.readings} device-days"
        )


def refuse_readings(days: float) -> None:
    """Raise 422 when summaries cannot stand for the readings of so many device-days that these are too many."""
    if days > ONE_BY_ONE.readings:
        work = f"{days:.0f} device-days that the keeper has not summarized, or whose readings a figure needs, are more"
        raise invalid("from", f"{work} than {ONE_BY_ONE.readings}; ask for a shorter period")
