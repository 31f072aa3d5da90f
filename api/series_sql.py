"""The SQL of a series, derived from the contract. Pure.

Both statements answer rows of the index of a column and, for each measure, the members of `Values`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from api.period import Period
from api.series_columns import Values
from bridge.contract import Kind, Measure

_MEMBERS = len(Values._fields)


def readings_sql(kind: Kind, measures: Sequence[Measure], period: Period) -> str:
    """The columns from the readings of some spans of time within a period.

    $1 is the device, $2 the start of the columns, $3 their width in microseconds, $4 and $5 are the spans' bounds.
    OFFSET 0 makes the planner look for each span by the key; without it, it joins the spans with all readings of the
    period.
    """
    values = ", ".join(_of_readings(measure.column) for measure in measures)
    columns = ", ".join(measure.column for measure in measures)
    return (
        f"SELECT {_index('ts')} AS n, {values} FROM unnest($4::timestamptz[], $5::timestamptz[]) AS s(since, until) "  # noqa: S608
        f"CROSS JOIN LATERAL (SELECT ts, {columns} FROM {kind.history_table} "
        f"WHERE {kind.id_column} = $1 AND ts >= since AND ts < until AND {period.days_sql()} OFFSET 0) AS r GROUP BY n"
    )


def summaries_sql(kind: Kind, measures: Sequence[Measure], period: Period) -> str:
    """The columns from the summaries of quarter hours, and the quarter hours whose readings are needed instead.

    It is one statement, so that summaries and marks are of one state: the keeper deletes a mark and replaces the
    summary in one transaction.

    $1 is the device, $2 the start of the columns, $3 their width in microseconds, $4 and $5 are the first quarter hour
    and the end of the last one, $6 are days whose readings are detached, and $7 is how many quarter hours to read are
    answered at most. Behind the members of the measures, a row has the quarter hour to read or null.
    """
    key = f"{kind.id_column} = $1 AND bucket >= $4 AND bucket < $5"
    parts = [_part(kind, measure) for measure in measures]
    columns = ", ".join(f"{column} AS {name}" for part in parts for name, column in part.columns)
    values = ", ".join(_of_summaries(part.name) for part in parts)
    nothing = ", ".join(["NULL"] * _MEMBERS * len(parts))
    return (
        f"WITH dirty AS MATERIALIZED (SELECT DISTINCT bucket FROM {kind.dirty_table} WHERE {key}), "  # noqa: S608
        f"own AS (SELECT bucket, {_index('bucket')} AS n, is_even, {columns} FROM {kind.quarter_table} AS q "
        f"WHERE {key} AND {period.days_sql('bucket')} AND (bucket AT TIME ZONE 'UTC')::date <> ALL ($6::date[]) "
        "AND NOT EXISTS (SELECT FROM dirty AS d WHERE d.bucket = q.bucket)), "
        f"judged AS MATERIALIZED (SELECT *, {' OR '.join(part.is_insufficient for part in parts)} AS is_read "
        "FROM own WINDOW w AS (PARTITION BY n)) "
        f"SELECT n, {values}, NULL::timestamptz AS bucket FROM judged WHERE NOT is_read GROUP BY n "
        f"UNION ALL SELECT NULL, {nothing}, bucket "
        "FROM (SELECT bucket FROM judged WHERE is_read UNION ALL SELECT bucket FROM dirty LIMIT $7) AS r"
    )


class _Part(NamedTuple):
    """How a measure is taken from summaries."""

    name: str
    columns: list[tuple[str, str]]
    """How many readings have it (null for none), and its first, last, least and greatest value."""
    is_insufficient: str
    """Whether the readings are needed instead."""


def _part(kind: Kind, measure: Measure) -> _Part:
    if measure.sort == "gauge":
        return _gauge(measure.column)
    if measure.sort == "register":
        return _register(measure.column, "in" if measure is kind.register_in else "out")
    return _interval(measure.column)


def _gauge(name: str) -> _Part:
    """Where not all readings have it, its first and last value are unknown, which matters at a column's ends only."""
    known = f"FILTER (WHERE {name}_readings IS NOT NULL) OVER w"
    at_end = f"bucket = min(bucket) {known} OR bucket = max(bucket) {known}"
    columns = [(f"{name}_{part}",) * 2 for part in ("readings", "first", "last", "least", "most")]
    return _Part(name, columns, f"({name}_readings IS NOT NULL AND {name}_first IS NULL AND ({at_end}))")


def _register(name: str, direction: str) -> _Part:
    """In an even quarter hour every reading has it, or none, and it does not fall."""
    first, last = f"register_{direction}_first", f"register_{direction}_last"
    columns = [
        (f"{name}_readings", f"CASE WHEN {first} IS NOT NULL THEN readings END"),
        *((f"{name}_{part}", first) for part in ("first", "least")),
        *((f"{name}_{part}", last) for part in ("last", "most")),
    ]
    return _Part(name, columns, "NOT is_even")


def _interval(name: str) -> _Part:
    """A summary has the sums of an interval's energies, not each of them: it tells only where there are none."""
    columns = [(f"{name}_readings", "interval_first")]
    columns += [(f"{name}_{part}", "NULL::float8") for part in ("first", "last", "least", "most")]
    return _Part(name, columns, f"(NOT is_even OR {name}_readings IS NOT NULL)")


def _of_readings(name: str) -> str:
    known = f"FILTER (WHERE {name} IS NOT NULL)"
    return (
        f"count({name}), (array_agg({name} ORDER BY ts) {known})[1], min(ts) {known}, "
        f"(array_agg({name} ORDER BY ts DESC) {known})[1], max(ts) {known}, min({name}), max({name})"
    )


def _of_summaries(name: str) -> str:
    known = f"FILTER (WHERE {name}_readings IS NOT NULL)"
    return (
        f"coalesce(sum({name}_readings), 0)::int8, (array_agg({name}_first ORDER BY bucket) {known})[1], "
        f"min(bucket) {known}, (array_agg({name}_last ORDER BY bucket DESC) {known})[1], max(bucket) {known}, "
        f"min({name}_least), max({name}_most)"
    )


def _index(column: str) -> str:
    """The index of the column of time in which an instant is."""
    return f"(tstzrange_subdiff({column}, $2) * 1e6)::int8 / $3::int8"
