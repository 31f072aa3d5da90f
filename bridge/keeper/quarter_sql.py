"""The SQL that makes summaries of quarter hours from the history, derived from the contract. Pure.

docs/decisions/0026 has the reasons; `api.energy.quarter` is how a summary is read. Energies of intervals are whole
multiples of 1e-12 kWh, so a sum does not depend on the order.
"""

from collections.abc import Iterator

from bridge.contract import Kind, Measure

LONGEST_LINE_US = 600_000_000
"""The area under a gauge is kept where no two readings are further apart: lines of this length are always measured."""
MOST_UNITS = 9_000_000_000_000_000_000
"""Sums of energies from here on are not kept."""


def close_sql(kind: Kind) -> str:
    """Make the summaries of the quarter hours from $1 up to $2 of the devices after $3 up to $4.

    The devices are those of the live table: it has every device that the history has.
    """
    chosen = (
        f"SELECT {kind.id_column} AS device, bucket FROM {kind.live_table}, "  # noqa: S608
        "generate_series($1::timestamptz, $2::timestamptz - interval '15 minutes', interval '15 minutes') AS bucket "
        f"WHERE {kind.id_column} > $3 AND {kind.id_column} <= $4"
    )
    return _make_sql(kind, chosen)


def clean_sql(kind: Kind) -> str:
    """Delete the marks $3, of quarter hours from $1 up to $2, and make their summaries again; returns their number.

    It is one statement, so it sees one state of the database: a reading that it does not see has a mark that it does
    not see, which stays.
    """
    device = kind.id_column
    taken = f"taken AS (DELETE FROM {kind.dirty_table} WHERE ctid = ANY ($3) RETURNING {device}, bucket)"  # noqa: S608
    chosen = f"SELECT DISTINCT {device} AS device, bucket FROM taken"  # noqa: S608
    return f"WITH {taken}, made AS ({_make_sql(kind, chosen)}) SELECT count(*) FROM taken"  # noqa: S608


def _make_sql(kind: Kind, chosen: str) -> str:
    """Each quarter hour is a scan of the key, whose order saves a sort."""
    columns = dict(_columns(kind))
    names = ", ".join([kind.id_column, "bucket", *columns])
    replaced = ", ".join(f"{name} = excluded.{name}" for name in columns)
    values = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    return (
        f"INSERT INTO {kind.quarter_table} ({names}) SELECT device, bucket, made.* FROM ({chosen}) AS chosen "  # noqa: S608
        f"CROSS JOIN LATERAL (SELECT {values} FROM ({_rows_sql(kind)}) AS r HAVING count(*) > 0) AS made "
        f"ON CONFLICT ({kind.id_column}, bucket) DO UPDATE SET {replaced}"
    )


def _rows_sql(kind: Kind) -> str:
    """The readings of a chosen device and quarter hour, each with what it needs of the one before it.

    `gap` is null in the first one. The constant bounds let the planner skip partitions.
    """
    interval = kind.interval
    measures = [m.column for m in (*(m for _, m in registers(kind)), *kind.of_sort("gauge"))]
    units = "NULL::int8" if interval is None else f"({interval.column} * 1e12)::int8"
    before = [f"lag({m.column}) OVER w AS {m.column}_before" for m in _with_difference(kind)]
    columns = ", ".join([f"{units} AS units", *measures, *before])
    us = "(tstzrange_subdiff(ts, bucket) * 1e6)::int4"
    return (
        f"SELECT {us} AS us, {columns}, (tstzrange_subdiff(ts, lag(ts) OVER w) * 1e6)::int4 AS gap, "  # noqa: S608
        f"lead(ts) OVER w IS NULL AS is_last FROM {kind.history_table} "
        f"WHERE {kind.id_column} = device AND ts >= bucket AND ts < bucket + interval '15 minutes' "
        "AND ts >= $1 AND ts < $2 WINDOW w AS (ORDER BY ts)"
    )


def _columns(kind: Kind) -> Iterator[tuple[str, str]]:
    """The columns of a summary, except for its key, as aggregates of the rows."""
    yield "readings", "count(*)::int4"
    yield "first_us", "min(us)"
    yield "last_us", "max(us)"
    yield "widest_us", "max(gap)"
    yield "is_even", _is_even(kind)
    yield "interval_first", "min(units) FILTER (WHERE gap IS NULL)"
    for direction, sign in (("in", ">"), ("out", "<")):
        total = f"abs({_others(sign)})"
        yield f"interval_{direction}", f"CASE WHEN {total} < {MOST_UNITS} THEN {total}::int8 END"
        yield f"steps_{direction}", f"nullif(count(*) FILTER (WHERE units {sign} 0 AND gap IS NOT NULL), 0)::int4"
    for direction, measure in registers(kind):
        yield f"register_{direction}_first", f"min({measure.column}) FILTER (WHERE gap IS NULL)"
        yield f"register_{direction}_last", f"max({measure.column}) FILTER (WHERE is_last)"
        rises = f"count(*) FILTER (WHERE {measure.column} > {measure.column}_before)"
        yield f"rises_{direction}", f"nullif({rises}, 0)::int4"
    if steepest := [f"{m.column} - {m.column}_before" for _, m in registers(kind)]:
        yield "steepest_kw", f"max(greatest({', '.join(steepest)}) * (3.6e9::float8 / gap))"
    for gauge in kind.of_sort("gauge"):
        yield from _of_gauge(gauge)


def _of_gauge(gauge: Measure) -> Iterator[tuple[str, str]]:
    column = gauge.column
    is_even = f"count({column}) = count(*)"
    yield f"{column}_readings", f"nullif(count({column}), 0)::int4"
    yield f"{column}_first", f"CASE WHEN {is_even} THEN min({column}) FILTER (WHERE gap IS NULL) END"
    yield f"{column}_last", f"CASE WHEN {is_even} THEN max({column}) FILTER (WHERE is_last) END"
    yield f"{column}_least", f"min({column})"
    yield f"{column}_most", f"max({column})"
    if gauge.averaged:
        area = f"coalesce(sum(({column} + {column}_before) * gap), 0)"
        is_measured = f"{is_even} AND coalesce(max(gap), 0) <= {LONGEST_LINE_US}"
        yield f"{column}_area", f"CASE WHEN {is_measured} THEN {area} END"


def _others(sign: str) -> str:
    """The sum of the positive or the negative energies of all intervals but the first."""
    return f"sum(units) FILTER (WHERE units {sign} 0 AND gap IS NOT NULL)"


def _is_even(kind: Kind) -> str:
    """Whether every reading has the same measures of energy, no register falls and no sum is out of range."""
    counted = ["units", *(m.column for _, m in registers(kind))]
    conditions = [f"count({column}) IN (0, count(*))" for column in counted]
    conditions += [f"coalesce(bool_and({m.column} >= {m.column}_before), true)" for _, m in registers(kind)]
    others = [f"coalesce(abs({_others(sign)}), 0)" for sign in "><"]
    conditions += [f"{' + '.join(others)} + coalesce(abs(min(units) FILTER (WHERE gap IS NULL)), 0) < {MOST_UNITS}"]
    return " AND ".join(conditions)


def registers(kind: Kind) -> list[tuple[str, Measure]]:
    """The registers of a kind, each with its direction, `in` or `out`."""
    found = (("in", kind.register_in), ("out", kind.register_out))
    return [(direction, measure) for direction, measure in found if measure is not None]


def _with_difference(kind: Kind) -> list[Measure]:
    """The measures of which the value of the reading before is needed."""
    return [*(m for _, m in registers(kind)), *(m for m in kind.of_sort("gauge") if m.averaged)]
