"""How much one request may read: the one limit of all figures.

A day of readings costs far more than a day of summaries of quarter hours. So the days that the keeper has not
summarized yet are limited apart from the days in all.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from api.database import Connection
from api.period import Period
from api.problems import invalid

MOST_DEVICE_DAYS = 8_000
"""Days of a period x devices, each device at least one day: a year of twenty devices."""
MOST_DAYS_OF_READINGS = 400
"""Of these, the days that are read as readings."""
_DAY = timedelta(days=1)
_CLOSED = "SELECT greatest(min(closed_until), '0001-01-02 00:00+00') FROM quarter_mark"


class Allowance(NamedTuple):
    """What a request about a period costs for each device, in days."""

    days: float
    """Of the period."""
    open_days: float
    """Of these, the elapsed ones that the keeper has not summarized."""

    @property
    def devices(self) -> int:
        """How many devices a request may read over the period; 0 when it is too long for any."""
        most = MOST_DEVICE_DAYS / max(1.0, self.days)
        return int(min(most, MOST_DAYS_OF_READINGS / self.open_days) if self.open_days else most)

    def refuse(self, devices: int, narrow: tuple[str, str]) -> None:
        """Raise 422 when so many devices are too much; `narrow` is the parameter that says which devices, and advice.

        The problem names `from` instead where the same devices could be read over one day.
        """
        if devices <= self.devices:
            return
        field, advice = ("from", "a shorter period") if devices <= MOST_DAYS_OF_READINGS else narrow
        raise invalid(field, f"{self._work(devices)}; ask for {advice}")

    def _work(self, devices: int) -> str:
        count = f"{devices} devices" if devices <= MOST_DEVICE_DAYS else f"more than {MOST_DEVICE_DAYS} devices"
        if devices * max(1.0, self.days) > MOST_DEVICE_DAYS:
            return f"{count} over {self.days:.1f} days are more than {MOST_DEVICE_DAYS} device-days"
        return (
            f"{count} over {self.open_days:.1f} days that the keeper has not summarized are more than "
            f"{MOST_DAYS_OF_READINGS} device-days"
        )


async def allowance(c: Connection, period: Period) -> Allowance:
    """What a request about this period costs, by what the keeper has summarized."""
    closed: datetime = await c.fetchval(_CLOSED)
    elapsed = min(period.end, datetime.now(UTC))
    return Allowance((period.end - period.start) / _DAY, max(0.0, (elapsed - max(closed, period.start)) / _DAY))


def refuse_readings(days: float) -> None:
    """Raise 422 when summaries cannot stand for the readings of so many device-days that these are too many."""
    if days > MOST_DAYS_OF_READINGS:
        work = f"{days:.0f} device-days that the keeper has not summarized, or whose readings a figure needs, are more"
        raise invalid("from", f"{work} than {MOST_DAYS_OF_READINGS}; ask for a shorter period")
