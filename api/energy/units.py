"""Whole numbers for time and energy."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

UNITS_PER_KWH = 10**12
US_PER_S = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def us_of(instant: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (instant - _EPOCH) // _US


def instant_of(us: int) -> datetime:
    """The instant of `us_of`."""
    return _EPOCH + timedelta(microseconds=us)


def units_of(kwh: float) -> int:
    """An interval's energy in units; exact for up to twelve decimals, as `(kwh * 1e12)::int8` in SQL."""
    return round(kwh * 1e12)


def register_units_of(kwh: float) -> int:
    """A register's value in units: its first 15 significant digits, as `(kwh::numeric * 1e12)` in SQL.

    A register of a million kWh has no room for twelve decimals in a float, but what the device wrote has at most 15
    digits, and those a float keeps.
    """
    return int(Decimal(f"{kwh:.15g}") * UNITS_PER_KWH)


def kwh_of(units: int) -> float:
    """Units in kWh."""
    return units / UNITS_PER_KWH
