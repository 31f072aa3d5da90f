"""The SQL that composes the summaries of hours from those of quarter hours, derived from the contract. Pure.

An hour has what its readings would have as one summary (`keeper.quarter_sql`), so that it does not matter how they are
divided into quarter hours; only `least_us` depends on that. Six hours are composed of hours in the same way.
docs/decisions/0026 has the reasons.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from operator import attrgetter
from typing import NamedTuple

from bridge.contract import Kind
from bridge.keeper.quarter_sql import MOST_UNITS, registers


class Level(NamedTuple):
    """Summaries of one length that are composed of shorter ones, which are called its parts."""

    length: timedelta
    table: Callable[[Kind], str]
    mark: str
    """The column of `quarter_mark` that has the end of the last one."""
    parts_table: Callable[[Kind], str]
    parts_mark: str
    least_us: str
    """The least of the times between readings, as a part has it."""

    @property
    def interval(self) -> str:
        """The length as SQL."""
        return f"interval '{self.length // timedelta(hours=1)} hours'"


_MEAN_US = "(last_us - first_us) / nullif(readings - 1, 0)"
HOURS = Level(
    timedelta(hours=1),
    attrgetter("hour_table"),
    "composed_until",
    attrgetter("quarter_table"),
    "closed_until",
    _MEAN_US,
)
SIX_HOURS = Level(
    timedelta(hours=6),
    attrgetter("six_hour_table"),
    "six_hours_until",
    attrgetter("hour_table"),
    "composed_until",
    "least_us",
)


def compose_sql(kind: Kind, level: Level) -> str:
    """Compose the hours from $1 up to $2 of the devices after $3 up to $4."""
    device = kind.id_column
    return _compose_sql(
        kind,
        level,
        f"SELECT {device} AS device, hour FROM {kind.live_table}, "  # noqa: S608
        f"generate_series($1::timestamptz, $2::timestamptz - {level.interval}, {level.interval}) AS hour "
        f"WHERE {device} > $3 AND {device} <= $4",
    )


def recompose_sql(kind: Kind, level: Level) -> str:
    """Compose again the hours $4, each of the device in $3; they are from $1 up to $2."""
    chosen = "SELECT device, hour FROM unnest($3::text[], $4::timestamptz[]) AS c(device, hour)"
    return _compose_sql(kind, level, chosen)


def _compose_sql(kind: Kind, level: Level, chosen: str) -> str:
    columns = dict(_columns(kind))
    names = ", ".join([kind.id_column, "bucket", *columns])
    replaced = ", ".join(f"{name} = excluded.{name}" for name in columns)
    values = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    return (
        f"INSERT INTO {level.table(kind)} ({names}) SELECT device, hour, made.* FROM ({chosen}) AS chosen "  # noqa: S608
        f"CROSS JOIN LATERAL (SELECT {values} FROM ({_parts_sql(kind, level)}) AS q HAVING count(*) > 0) AS made "
        f"ON CONFLICT ({kind.id_column}, bucket) DO UPDATE SET {replaced}"
    )


def _parts_sql(kind: Kind, level: Level) -> str:
    """The parts of the hour of a chosen device, each with what it needs of the one before it.

    `gap` is null in the first one. The constant bounds let the planner skip partitions.
    """
    kept = [f"register_{direction}_{end}" for direction, _ in registers(kind) for end in ("first", "last")]
    before = [f"lag(register_{direction}_last) OVER w AS {direction}_before" for direction, _ in registers(kind)]
    steepest = ["steepest_kw"] if kept else []
    columns = ", ".join(["interval_first", "interval_in", "interval_out", *kept, *before, *steepest])
    start = "(tstzrange_subdiff(bucket, hour) * 1e6)::int8"
    return (
        f"SELECT readings, is_even, widest_us, first_us, last_us, {level.least_us} AS least, "  # noqa: S608
        f"{start} AS start, {columns}, "
        f"{start} + first_us - lag({start} + last_us) OVER w AS gap, lead(bucket) OVER w IS NULL AS is_last "
        f"FROM {level.parts_table(kind)} WHERE {kind.id_column} = device "
        f"AND bucket >= hour AND bucket < hour + {level.interval} "
        "AND bucket >= $1 AND bucket < $2 WINDOW w AS (ORDER BY bucket)"
    )


def _columns(kind: Kind) -> Iterator[tuple[str, str]]:
    """The columns of an hour, except for its key, as aggregates of its parts."""
    yield "readings", "sum(readings)::int4"
    yield "first_us", "min(start + first_us)"
    yield "last_us", "max(start + last_us)"
    yield "widest_us", "max(greatest(widest_us, gap))"
    yield "least_us", "min(least(least, gap))"
    yield "is_even", _is_even(kind)
    yield "interval_first", "min(interval_first) FILTER (WHERE gap IS NULL)"
    for direction, sign in (("in", ""), ("out", "-")):
        total = _total(direction, sign)
        yield f"interval_{direction}", f"CASE WHEN {total} < {MOST_UNITS} THEN nullif({total}, 0)::int8 END"
    for direction, _ in registers(kind):
        yield f"register_{direction}_first", f"min(register_{direction}_first) FILTER (WHERE gap IS NULL)"
        yield f"register_{direction}_last", f"max(register_{direction}_last) FILTER (WHERE is_last)"
    if rises := [f"register_{direction}_first - {direction}_before" for direction, _ in registers(kind)]:
        yield "steepest_kw", f"max(greatest(steepest_kw, greatest({', '.join(rises)}) * (3.6e9::float8 / gap)))"


def _total(direction: str, sign: str) -> str:
    """The sum of the energies in one direction of all intervals but the first."""
    first = f"CASE WHEN gap IS NULL THEN 0 ELSE greatest({sign}interval_first, 0) END"
    return f"sum(coalesce(interval_{direction}, 0) + {first})"


def _is_even(kind: Kind) -> str:
    """Whether every reading has the same measures of energy, no register falls and no sum is out of range."""
    firsts = ["interval_first", *(f"register_{direction}_first" for direction, _ in registers(kind))]
    conditions = ["bool_and(is_even)", *(f"count({column}) IN (0, count(*))" for column in firsts)]
    conditions += [
        f"coalesce(bool_and(register_{direction}_first >= {direction}_before), true)"
        for direction, _ in registers(kind)
    ]
    first = "coalesce(abs(min(interval_first) FILTER (WHERE gap IS NULL)), 0)"
    conditions += [f"{_total('in', '')} + {_total('out', '-')} + {first} < {MOST_UNITS}"]
    return " AND ".join(conditions)
