"""The summaries of quarter hours, hours and six hours as the tests expect them: made in Python from the history."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg

from bridge.contract import KINDS, Kind, Measure

Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row = dict[str, Any]
Summaries = dict[tuple[str, datetime], Row]

QUARTER, HOUR, SIX_HOURS = timedelta(minutes=15), timedelta(hours=1), timedelta(hours=6)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TOO_MANY_UNITS = 9 * 10**18
TEN_MINUTES_US = 600_000_000
_COMPOSED = "SELECT greatest(least({}), '0001-01-02 00:00+00') FROM quarter_mark WHERE kind = $1"
_MARKS = {HOUR: "closed_until, composed_until", SIX_HOURS: "closed_until, composed_until, six_hours_until"}
_DIRTY = "SELECT {}, bucket FROM {}"
_HOURS = "SELECT * FROM {} WHERE ($1::text IS NULL OR {} = $1) AND bucket < $2"


def quarter_of(at: datetime) -> datetime:
    """The begin of its quarter hour."""
    return EPOCH + (at - EPOCH) // QUARTER * QUARTER


def hour_of(at: datetime) -> datetime:
    """The begin of its hour (UTC)."""
    return EPOCH + (at - EPOCH) // HOUR * HOUR


def six_hours_of(at: datetime) -> datetime:
    """The begin of its six hours: 00, 06, 12 or 18 o'clock (UTC)."""
    return EPOCH + (at - EPOCH) // SIX_HOURS * SIX_HOURS


async def expected(db: Db, kind: Kind, device: str | None = None) -> Summaries:
    """The summary of each device and quarter hour that the history has, or of one device."""
    return {key: summary_of(kind, own) for key, own in (await _rows(db, kind, device, quarter_of)).items()}


async def _expected_hours(
    db: Db, kind: Kind, device: str | None, begin_of: Callable[[datetime], datetime]
) -> Summaries:
    """The same of hours or six hours."""
    return {key: hour_summary_of(kind, own) for key, own in (await _rows(db, kind, device, begin_of)).items()}


async def _rows(
    db: Db, kind: Kind, device: str | None, begin_of: Callable[[datetime], datetime]
) -> dict[tuple[str, datetime], list[Row]]:
    """The rows by device and quarter hour or hour, with the time since its begin."""
    rows: dict[tuple[str, datetime], list[Row]] = defaultdict(list)
    own = f"$1::text IS NULL OR {kind.id_column} = $1"
    sql = f"SELECT * FROM {kind.history_table} WHERE {own} ORDER BY {kind.id_column}, ts"
    for record in await db.fetch(sql, device):
        row = dict(record)
        bucket = begin_of(row["ts"])
        row["us"] = (row["ts"] - bucket) // MICROSECOND
        rows[row[kind.id_column], bucket].append(row)
    return rows


async def stored(db: Db, kind: Kind, device: str | None = None) -> Summaries:
    """The summaries of the table that may be used: closed and without a mark."""
    of_quarter = f"d.{kind.id_column} = q.{kind.id_column} AND d.bucket = q.bucket"
    sql = (
        f"SELECT q.* FROM {kind.quarter_table} q JOIN quarter_mark ON kind = $1 WHERE bucket < closed_until "
        f"AND NOT EXISTS (SELECT FROM {kind.dirty_table} d WHERE {of_quarter}) "
        f"AND ($2::text IS NULL OR {kind.id_column} = $2)"
    )
    records = await db.fetch(sql, kind.name, device)
    rows = [dict(record) for record in records]
    return {(row.pop(kind.id_column), row.pop("bucket")): row for row in rows}


async def usable(db: Db, kind: Kind, device: str | None = None) -> Summaries:
    """What is expected of the quarter hours that are closed and have no mark."""
    dirty = {tuple(row) for row in await db.fetch(f"SELECT {kind.id_column}, bucket FROM {kind.dirty_table}")}
    closed = await closed_until(db, kind)
    found = await expected(db, kind, device)
    return {key: row for key, row in found.items() if key[1] < closed and key not in dirty}


async def closed_until(db: Db, kind: Kind) -> datetime:
    """The end of the last quarter hour that is closed; in year 1 when there is none."""
    sql = "SELECT greatest(closed_until, '0001-01-02 00:00+00') FROM quarter_mark WHERE kind = $1"
    closed: datetime = await db.fetchval(sql, kind.name)
    return closed


async def assert_right(db: Db, device: str | None = None) -> int:
    """Compare all clean summaries of closed quarter hours, hours and six hours with the history.

    Returns how many quarter hours there are.
    """
    await assert_hours_right(db, device)
    await assert_hours_right(db, device, SIX_HOURS)
    count = 0
    for kind in KINDS:
        async with db.transaction(isolation="repeatable_read", readonly=True):
            found, wanted = await stored(db, kind, device), await usable(db, kind, device)
        assert found.keys() == wanted.keys()
        for key, row in wanted.items():
            assert_same(kind, found[key], row, key)
        count += len(wanted)
    return count


async def assert_hours_right(db: Db, device: str | None = None, length: timedelta = HOUR) -> int:
    """Compare all hours, or six hours, that may be used with the history; returns how many there are."""
    count, begin_of = 0, hour_of if length == HOUR else six_hours_of
    for kind in KINDS:
        async with db.transaction(isolation="repeatable_read", readonly=True):
            composed: datetime = await db.fetchval(_COMPOSED.format(_MARKS[length]), kind.name)
            dirty = {
                (row[0], begin_of(row[1])) for row in await db.fetch(_DIRTY.format(kind.id_column, kind.dirty_table))
            }
            table = kind.hour_table if length == HOUR else kind.six_hour_table
            rows = await db.fetch(_HOURS.format(table, kind.id_column), device, composed)
            wanted = await _expected_hours(db, kind, device, begin_of)
        usable = {key: row for key, row in wanted.items() if key[1] + length <= composed and key not in dirty}
        hours = [dict(row) for row in rows]
        found = {(row.pop(kind.id_column), row.pop("bucket")): row for row in hours}
        found = {key: row for key, row in found.items() if key not in dirty}
        assert found.keys() == usable.keys()
        for key, row in usable.items():
            assert found[key]["is_even"] == row["is_even"], (kind.name, key)
            if row["is_even"]:
                assert_same(kind, found[key], row, key)
        count += len(usable)
    return count


def assert_same(kind: Kind, found: Row, wanted: Row, key: object) -> None:
    """Compare all values, areas to 1e-12 of the sum of their parts' sizes."""
    for column, value in wanted.items():
        if isinstance(value, Area):
            assert found[column] is not None, (kind.name, key, column)
            assert abs(found[column] - value.total) <= 1e-12 * value.size, (kind.name, key, column)
        else:
            assert found[column] == value, (kind.name, key, column, found[column], value)
    assert found.keys() == wanted.keys()


class Area:
    """The exact sum of some numbers, and of their absolute values."""

    def __init__(self, parts: Sequence[float]) -> None:
        self.total, self.size = math.fsum(parts), math.fsum(map(abs, parts))


def summary_of(kind: Kind, rows: Sequence[Row]) -> Row:
    """The summary of the rows of one quarter hour, in the order of time."""
    gaps = [after["us"] - before["us"] for before, after in itertools.pairwise(rows)]
    summary: Row = {
        "readings": len(rows),
        "first_us": rows[0]["us"],
        "last_us": rows[-1]["us"],
        "widest_us": max(gaps, default=None),
    }
    units = [_units(kind, row) for row in rows]
    registers = {"in": kind.register_in, "out": kind.register_out}
    energies = [units, *([row[m.column] for row in rows] for m in registers.values() if m)]
    falls = any(after < before for values in energies[1:] for before, after in _steps(values))
    total = sum(abs(value) for value in units if value is not None)
    summary["is_even"] = all(map(_is_even, energies)) and not falls and total < TOO_MANY_UNITS
    summary["interval_first"] = units[0]
    for direction, sign in (("in", 1), ("out", -1)):
        others = [sign * value for value in units[1:] if value is not None and sign * value > 0]
        summary[f"interval_{direction}"] = sum(others) if others and sum(others) < TOO_MANY_UNITS else None
        summary[f"steps_{direction}"] = len(others) or None
    for direction, measure in registers.items():
        values = [row[measure.column] for row in rows] if measure else [None]
        summary[f"register_{direction}_first"], summary[f"register_{direction}_last"] = values[0], values[-1]
        summary[f"rises_{direction}"] = sum(after > before for before, after in _steps(values)) or None
    summary["steepest_kw"] = max(_slopes([m for m in registers.values() if m], rows, gaps), default=None)
    for gauge in kind.of_sort("gauge"):
        summary |= _of_gauge(gauge, rows, gaps)
    return summary


def hour_summary_of(kind: Kind, rows: Sequence[Row]) -> Row:
    """The summary of the rows of some hours, in the order of time: without gauges, as if they were one quarter hour."""
    summary = summary_of(kind, rows)
    gauges = tuple(f"{gauge.column}_" for gauge in kind.of_sort("gauge"))
    found = {column: value for column, value in summary.items() if not column.startswith((*gauges, "steps_", "rises_"))}
    by_quarter = [list(own) for _, own in itertools.groupby((row["us"] for row in rows), lambda us: us // 900_000_000)]
    means = [(own[-1] - own[0]) // (len(own) - 1) for own in by_quarter if len(own) > 1]
    between = [after[0] - before[-1] for before, after in itertools.pairwise(by_quarter)]
    return found | {"least_us": min([*means, *between], default=None)}


def _units(kind: Kind, row: Row) -> int | None:
    """The interval energy in whole multiples of 1e-12 kWh."""
    assert kind.interval is not None
    value = row[kind.interval.column]
    return None if value is None else round(value * 1e12)


def _is_even(values: Sequence[object]) -> bool:
    return len({value is None for value in values}) == 1


def _steps(values: Sequence[float | None]) -> Iterator[tuple[float, float]]:
    """Neighbours that both have a value."""
    for before, after in itertools.pairwise(values):
        if before is not None and after is not None:
            yield before, after


def _slopes(registers: Sequence[Measure], rows: Sequence[Row], gaps: Sequence[int]) -> Iterator[float]:
    for before, after, gap in zip(rows, rows[1:], gaps, strict=False):
        pairs = ((before[m.column], after[m.column]) for m in registers)
        if rises := [b - a for a, b in pairs if a is not None and b is not None]:
            yield max(rises) * (3.6e9 / gap)


def _of_gauge(gauge: Measure, rows: Sequence[Row], gaps: Sequence[int]) -> Row:
    column = gauge.column
    values = [row[column] for row in rows]
    present = [value for value in values if value is not None]
    is_everywhere = len(present) == len(values)
    summary: Row = {
        f"{column}_readings": len(present) or None,
        f"{column}_first": values[0] if is_everywhere else None,
        f"{column}_last": values[-1] if is_everywhere else None,
        f"{column}_least": min(present, default=None),
        f"{column}_most": max(present, default=None),
    }
    if gauge.averaged:
        is_measured = is_everywhere and max(gaps, default=0) <= TEN_MINUTES_US
        parts = [(a + b) * gap for a, b, gap in zip(values, values[1:], gaps, strict=False)] if is_measured else []
        summary[f"{column}_area"] = Area(parts) if is_measured else None
    return summary
