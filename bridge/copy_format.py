"""Rows as PostgreSQL's binary COPY wants them (https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format").

asyncpg can do this for any type; for our two kinds of reading one `struct` call each costs a quarter of that, and the
live row of a reading is the same bytes a second time.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Any

from bridge.reading import MeterReading, VehicleReading, jsonb_text

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no header extension
_TRAILER = b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_ID = 64
_JSONB_VERSION = b"\x01"
_ABSENT = -1, b""  # SQL NULL


def _packers(values: int) -> list[Callable[..., bytes]]:
    """By the id's length: field count, id, ts and the values, each behind its length, and the length of `extra`."""
    return [Struct(f">hi{length}siq{'id' * values}i").pack for length in range(_LONGEST_ID + 1)]


_PACK_3, _PACK_2 = _packers(3), _packers(2)


@lru_cache(maxsize=8192)  # a fleet reports in step
def _microseconds(ts: datetime) -> int:
    return (ts - _EPOCH) // _MICROSECOND


def _jsonb(extra: dict[str, Any]) -> tuple[int, bytes]:
    """Length and bytes of the `extra` column."""
    data = _JSONB_VERSION + jsonb_text(extra).encode()
    return len(data), data


def vehicle_tuple(reading: VehicleReading) -> bytes:
    """id, ts, three values and extra as one tuple of the format."""
    device, ts, a, b, c, extra = reading
    name = device.encode()
    length = len(name)
    size, data = _jsonb(extra) if extra else _ABSENT
    return _PACK_3[length](6, length, name, 8, _microseconds(ts), 8, a, 8, b, 8, c, size) + data


def meter_tuple(reading: MeterReading) -> bytes:
    """id, ts, two values and extra as one tuple of the format."""
    device, ts, a, b, extra = reading
    name = device.encode()
    length = len(name)
    size, data = _jsonb(extra) if extra else _ABSENT
    return _PACK_2[length](5, length, name, 8, _microseconds(ts), 8, a, 8, b, size) + data


def copy_data(tuples: Iterable[bytes]) -> memoryview:
    """A whole COPY: header, tuples, trailer."""
    return memoryview(b"".join([_SIGNATURE, *tuples, _TRAILER]))
