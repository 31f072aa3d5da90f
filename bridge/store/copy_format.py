"""Encodes rows for PostgreSQL's binary COPY (https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format").

asyncpg can encode any type; one `struct` call per reading costs a quarter of that, and the live row of a reading uses
the same bytes again.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from struct import Struct
from typing import Any

from bridge.contract import Measure
from bridge.reading import Reading, jsonb_text

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no header extension
_TRAILER = b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_ID = 64
_JSONB_VERSION = b"\x01"
_ABSENT = -1, b""  # SQL NULL

Packer = Callable[[Reading], bytes]


@cache
def measures_of(shapes: frozenset[type[Reading]]) -> tuple[Measure, ...]:
    """The measures that occur in these classes, all of one kind, in the order of the contract."""
    present = {measure for shape in shapes for measure in shape.measures}
    kind = next(iter(shapes)).kind
    return tuple(measure for measure in kind.measures if measure in present)


def copy_tuples(readings: Iterable[Reading], measures: tuple[Measure, ...]) -> list[bytes]:
    """Encode each reading as a tuple: id, ts, the given measures (NULL where absent), extra."""
    packers = _packers(measures)
    return [packers[type(reading)](reading) for reading in readings]


class _Packers(dict[type[Reading], Packer]):
    """The packer of each class of readings, created on first use."""

    def __init__(self, measures: tuple[Measure, ...]) -> None:
        super().__init__()
        self._measures = measures

    def __missing__(self, shape: type[Reading]) -> Packer:
        self[shape] = packer = _new_packer(shape, self._measures)
        return packer


_packers = cache(_Packers)


def copy_data(tuples: Iterable[bytes]) -> memoryview:
    """The complete data of a COPY: header, tuples, trailer."""
    return memoryview(b"".join([_SIGNATURE, *tuples, _TRAILER]))


@lru_cache(maxsize=8192)  # devices report at the same times
def _microseconds(ts: datetime) -> int:
    return (ts - _EPOCH) // _MICROSECOND


def _jsonb(extra: dict[str, Any]) -> tuple[int, bytes]:
    """Length and bytes of the value of the `extra` column."""
    data = _JSONB_VERSION + jsonb_text(extra).encode()
    return len(data), data


def _new_packer(shape: type[Reading], columns: tuple[Measure, ...]) -> Packer:
    """Make the function that packs readings of this class for a COPY with these measures.

    It is compiled from source text, as `namedtuple` does: a loop over the columns costs three times as much.
    """
    has = [measure in shape.measures for measure in columns]
    fields = "".join("id" if present else "i" for present in has)
    packs = [Struct(f">hi{length}siq{fields}i").pack for length in range(_LONGEST_ID + 1)]
    values = [f"v{n}" for n in range(len(shape.measures))]
    given = iter(values)
    arguments = ", ".join(f"8, {next(given)}" if present else "-1" for present in has)
    source = (
        f"def pack(reading):\n"
        f"    device, ts, {', '.join(values)}, extra = reading\n"
        f"    name = device.encode()\n"
        f"    length = len(name)\n"
        f"    size, data = jsonb(extra) if extra else absent\n"
        f"    return packs[length]({len(has) + 3}, length, name, 8, microseconds(ts), {arguments}, size) + data\n"
    )
    names = {"packs": packs, "jsonb": _jsonb, "absent": _ABSENT, "microseconds": _microseconds}
    exec(source, names)  # noqa: S102  # the text is generated from numbers only
    packer: Packer = names["pack"]  # type: ignore[assignment]
    return packer
