"""The energy of many devices by bucket in one statement, for those whose figures need no judgement. Pure.

It folds the same pieces as `api.energy.curve` by the same whole-number rules: the summary of each six hours that may
stand for their hours, elsewhere that of each hour that may stand for its quarter hours, elsewhere that of each quarter
hour that may stand for its readings, and elsewhere the readings.
A device is *plain* if its rules are trivial for this period: each of its readings has the same measures of energy, no
register falls or rises steeply, and its interval is declared, or on each UTC day it is observed or does not matter,
because no gap is near 1.5 intervals. The statement names the others, which are folded one by one.

The statement is composed of steps, one function or text each:

    d, marks         the devices, and their dirty quarter hours
    s, h, q          their summaries of six hours, of hours and of quarter hours
    pieces, w        summaries and readings in the order of time, each with the one before it
    judged, base     of each device, what shows whether it is plain
    daily, observed  of devices that declare no interval: their UTC days, and the intervals of the days with gaps, as
                     `api.energy.interval` sees them
    spaced, plain    the intervals of the days, and of the device
    ends             until when readings are expected by now
    segments         energy from `start` to `first` (cross) and from `first` to `last` (rest)
    near, parts      the sums of those that one edge of a bucket divides at most, and the parts of the others

The columns of a piece: `uf` is the interval energy of its first reading, `ui` and `uo` that of the others (units);
`rif` and `ril` are the first and the last value of the register of energy in, `rof` and `rol` of energy out (kWh);
`least` is the least time between its quarter hours, or mean time between the readings in one.
"""

import re
from typing import NamedTuple

from api.energy.interval import DAY_US, HOUR_US, QUARTER_US, SIX_HOURS_US
from bridge.contract import Kind

_TYPES = (
    *("text[]", "int[]", "timestamptz", "int8", "int8[]", "int8"),
    *("int8", "int8", "int8[]", "float8", "int8", "int8"),
    *("int8", "int8", "int8[]", "int8[]", "int8"),
    *("int8", "int8", "int8[]", "int8"),
)
"""Of the parameters; each use is cast, because the statement is too long for the server to infer them."""
_MOST_RISE_KWH = 4_000_000
"""In units, the sum of two such rises fits into int8."""


def _at(us: str) -> str:
    return f"$3 + {us} * interval '1 microsecond'"


_FROM, _TO = _at("$11"), _at("$17")
_CLOSED = f"bucket >= {_at('$7')} AND bucket < {_at('$8')}"
_START = "(tstzrange_subdiff(bucket, $3) * 1e6)::int8"


class Days(NamedTuple):
    """Conditions with constants, which prune partitions when the statement is planned.

    A statement takes 0.1 ms more to plan for each partition that it might read.
    """

    readings: str
    """On `ts`: the days from which readings are taken; rows name those that are missing."""
    near: str
    """On `ts`: the hour before the time of the readings, in which most devices have their neighbour."""
    before: str
    """On `ts`: the days in which the neighbours before it are looked for."""
    after: str
    """On `ts`: those after it."""
    months: str
    """On `bucket`."""


def fold_sql(kind: Kind, days: Days, is_declared: bool, has_registers: bool) -> str:
    """The statement for devices that declare their interval, or for those that do not.

    Without registers it is shorter, and devices that have sent one are not plain.

    $1 are the devices and $2 the key of each; $3 is the period's start and $4 its length, $5 the buckets' edges, $6 is
    now; from $7 up to $8 summaries may be used, except for quarter hours $9; $10 is the kind's rated power in kW.
    Readings are taken from $11 up to $17. That is the period and, for registers, some hours before it, in which these
    have their highest value; to observe intervals the whole UTC days with a part in the period, and that of its end.
    $12 is the start of a day. From $13 up to $14 hours may be used, except for hours $15; these are within $7 and $8.
    $16 are the starts of the days of `days.readings`. From $18 up to $19 six hours may be used, except for $20; these
    are within $13 and $14. Only where intervals are not declared, $21 is that of days without an observed one. Times
    are microseconds since the period's start.

    Rows: key, bucket (from 1), whether anything is known, energy in and out, energy of intervals across its edges,
    covered and expected time, device. Rows with the bucket 0 name devices that are not plain. A row with the bucket -1
    has, as its expected time, the start of a day whose readings are needed too: then all other rows are wrong.
    """
    steps = [
        _devices_sql(kind),
        _summaries_sql(kind, days, has_registers),
        _pieces_sql(kind, days, has_registers),
        _judged(has_registers),
        *([_DECLARED] if is_declared else [_DAILY, _observed(kind, days, has_registers), _OBSERVED]),
        _ENDS,
        _parts(has_registers),
    ]
    sql = f"WITH {', '.join(steps)} {_SUMS}"
    return re.sub(r"\$(\d+)", lambda found: f"({found[0]}::{_TYPES[int(found[1]) - 1]})", sql)


def _devices_sql(kind: Kind) -> str:
    """Devices get numbers, by which pieces are sorted: a comparison of their names takes longer than that of the times.

    Bits of `sent`: 1 interval, 2 register in, 4 register out.
    """
    sent = " + ".join(
        f"CASE WHEN l.{m.column} IS NULL THEN 0 ELSE {bit} END"
        for m, bit in ((kind.interval, 1), (kind.register_in, 2), (kind.register_out, 4))
        if m is not None
    )
    return f"""
d AS MATERIALIZED (
    SELECT g.id::int4 AS id, g.name, g.key, {sent} AS sent, coalesce(v.rated_kw, $10) AS rated_kw,
           (v.interval_s * 1e6)::int8 AS declared,
           l.ts >= {_TO} AS continues
    FROM unnest($1, $2) WITH ORDINALITY AS g(name, key, id)
    LEFT JOIN {kind.live_table} l ON l.{kind.id_column} = g.name
    LEFT JOIN device v ON v.kind = '{kind.name}' AND v.id = g.name
)
"""  # noqa: S608


def _summaries_sql(kind: Kind, days: Days, has_registers: bool) -> str:
    """Six hours, the hours of those that may not be used and of the time without six hours, and quarter hours likewise.

    An hour with a gap between two quarter hours may not be used: these stand for their readings all the same.
    """
    columns = (
        "readings AS n, coalesce(widest_us, 0) AS widest, interval_first AS uf, coalesce(interval_in, 0) AS ui, "
        "coalesce(interval_out, 0) AS uo"
    )
    if has_registers:
        columns += (
            ", register_in_first AS rif, register_in_last AS ril, register_out_first AS rof, register_out_last AS rol, "
            "coalesce(steepest_kw, 0) AS steepest"
        )
    of_device = f"{kind.id_column} = d.name AND {days.months}"
    six_hours = """(
        SELECT id, name, sent, declared, $18 AS since, $19 AS until FROM d WHERE $18 < $19
    )"""
    hours = """(
        SELECT id, name, sent, declared, $13 AS since, $18 AS until FROM d WHERE $13 < $18
        UNION ALL SELECT id, name, sent, declared, $19, $14 FROM d WHERE $19 < $14
        UNION ALL SELECT id, name, sent, declared, start, start + length FROM s JOIN d USING (id) WHERE NOT is_usable
    )"""
    return f"""
marks AS MATERIALIZED (
    SELECT DISTINCT d.id, {_START} AS quarter FROM {kind.dirty_table} JOIN d ON {kind.id_column} = d.name
    WHERE {_CLOSED}
),
s AS MATERIALIZED ({_composed_sql(six_hours, kind.six_hour_table, SIX_HOURS_US, "$20", of_device, columns)}),
h AS MATERIALIZED ({_composed_sql(hours, kind.hour_table, HOUR_US, "$15", of_device, columns)}),
q AS MATERIALIZED (
    SELECT d.id, s.*, is_even AND NOT quarter IN (SELECT unnest($9))
               AND NOT (d.id, quarter) IN (SELECT id, quarter FROM marks) AS is_usable
    FROM (
        SELECT id, name, $7 AS since, $13 AS until FROM d WHERE $7 < $13
        UNION ALL SELECT id, name, $14, $8 FROM d WHERE $14 < $8
        UNION ALL SELECT id, name, start, start + length FROM h JOIN d USING (id) WHERE NOT is_usable
    ) AS d CROSS JOIN LATERAL (
        SELECT {_START} AS quarter, is_even, {_START} + first_us AS first, {_START} + last_us AS last,
               (last_us - first_us) / nullif(readings - 1, 0) AS least, {columns}
        FROM {kind.quarter_table} WHERE {of_device}
          AND bucket >= {_at("d.since")} AND bucket < {_at("d.until")} OFFSET 0
    ) AS s
)
"""  # noqa: S608


def _composed_sql(spans: str, table: str, length: int, divided: str, of_device: str, columns: str) -> str:
    """The summaries of one length in spans of time of devices, except for those that start at `divided` as unusable."""
    return f"""
    SELECT d.id, {length}::int8 AS length, s.*, is_even AND NOT start IN (SELECT unnest({divided}))
               AND NOT (d.id, start) IN (SELECT id, {_start_of("quarter", length)} FROM marks)
               AND (d.sent > 1 OR 2 * widest <= 3 * coalesce(d.declared, least, 0)) AS is_usable
    FROM {spans} AS d CROSS JOIN LATERAL (
        SELECT {_START} AS start, {_start_of(_START, DAY_US)} AS day, is_even, {_START} + first_us AS first,
               {_START} + last_us AS last, least_us AS least, {columns}
        FROM {table} WHERE {of_device}
          AND bucket >= {_at("d.since")} AND bucket < {_at("d.until")} OFFSET 0
    ) AS s
"""  # noqa: S608


def _pieces_sql(kind: Kind, days: Days, has_registers: bool) -> str:
    device = kind.id_column
    interval, register_in, register_out = (
        "NULL::float8" if m is None else m.column for m in (kind.interval, kind.register_in, kind.register_out)
    )
    names, energies = _PIECE, "uf IS NOT NULL"
    values, energy = "", f"{interval} IS NOT NULL"
    if has_registers:
        names, energies = (
            f"{_PIECE}, rif, ril, rof, rol, steepest",
            "(uf IS NOT NULL OR rif IS NOT NULL OR rof IS NOT NULL)",
        )
        values = f", {register_in} AS rif, {register_in} AS ril, {register_out} AS rof, {register_out} AS rol"
        values += ", 0::float8 AS steepest"
        energy = f"({energy} OR {register_in} IS NOT NULL OR {register_out} IS NOT NULL)"
    at = "(tstzrange_subdiff(ts, $3) * 1e6)::int8"
    row = (
        f"SELECT {at} AS first, {at} AS last, 1 AS n, 0 AS widest, NULL::int8 AS least, "  # noqa: S608
        f"({interval} * 1e12)::int8 AS uf, 0::int8 AS ui, 0::int8 AS uo{values}, false AS is_composed "
        f"FROM {kind.history_table}"
    )
    before = f"ts < {_FROM} AND {energy}"
    last_one = f"ORDER BY {device} DESC, ts DESC LIMIT 1"
    return f"""
spans AS (
    SELECT id, $11 AS since, $7 AS until FROM d WHERE $11 < $7
    UNION ALL SELECT id, $8, $17 FROM d WHERE $8 < $17
    UNION ALL SELECT id, quarter, quarter + {QUARTER_US} FROM q WHERE NOT is_usable
    UNION ALL SELECT id, quarter, quarter + {QUARTER_US} FROM marks
              WHERE NOT (id, quarter) IN (SELECT id, quarter FROM q)
),
composed AS NOT MATERIALIZED (TABLE s UNION ALL TABLE h),
pieces AS (
    SELECT id, {names}, true AS is_composed FROM composed WHERE is_usable AND {energies}
    UNION ALL SELECT id, {names}, false FROM q WHERE is_usable AND {energies}
    UNION ALL SELECT id, r.* FROM spans JOIN d USING (id) CROSS JOIN LATERAL (
        {row} WHERE {device} = d.name AND ts >= {_at("since")} AND ts < {_at("until")} AND ({days.readings})
            AND {energy} OFFSET 0) AS r
    UNION ALL SELECT id, r.* FROM d CROSS JOIN LATERAL (
        SELECT * FROM ({row} WHERE {device} = d.name AND {before} AND {days.near} {last_one}) AS near
        UNION ALL SELECT * FROM ({row} WHERE {device} = d.name AND {before} AND {days.before} {last_one}) AS far
        LIMIT 1) AS r
    UNION ALL SELECT id, r.* FROM d CROSS JOIN LATERAL (
        {row} WHERE {device} = d.name AND ts >= {_TO} AND {days.after} AND {energy}
        ORDER BY {device}, ts LIMIT 1) AS r WHERE continues
)
"""  # noqa: S608


_PIECE = "first, last, n, widest, least, uf, ui, uo"
"""The columns of a piece without registers."""


def _start_of(us: str, length: int) -> str:
    """The start of the hour or quarter hour of an instant."""
    return f"({us} - mod(mod({us} - $12, {length}) + {length}, {length}))"


def _rise(value: str, before: str) -> str:
    """The rise of a register in units, as `register_units_of` has it; 0 without one."""
    return f"coalesce((trunc({value}::numeric * 1e12) - trunc({before}::numeric * 1e12))::int8, 0)"


_MOST_US = 3_000_000_000
"""The square of such a length is within int8."""


def _until(edge: str, units: str) -> str:
    """The part of a segment's energy before an edge, rounded down: in int8, but in numeric for a long segment."""
    return (
        f"CASE WHEN {edge} >= first THEN {units} WHEN {edge} <= start OR {units} = 0 THEN 0 "
        f"WHEN first - start <= {_MOST_US} THEN {units} / (first - start) * ({edge} - start) "
        f"+ {units} % (first - start) * ({edge} - start) / (first - start) "
        f"ELSE div({units}::numeric * ({edge} - start), first - start)::int8 END"
    )


def _part(units: str) -> str:
    """The part of a segment in a bucket."""
    return f"{_until('($5)[edge + 1]', units)} - {_until('($5)[edge]', units)}"


_MOST_INTERVAL_US = DAY_US * 2 // 3
"""The longest interval that can be observed: three gaps in two days."""
_LONGEST_US = f"greatest({_MOST_INTERVAL_US}, $21)"
_OF_REGISTERS = """
           coalesce(bool_or(rif < prev_in OR rof < prev_out), false) AS falls,
           coalesce(max(greatest(rif - prev_in, rof - prev_out, ril - rif, rol - rof)), 0) AS greatest_rise,
           greatest(max(steepest),
                    max(greatest(rif - prev_in, rof - prev_out, 1e-12) * (3.6e9::float8 / nullif(first - prev, 0)))
               ) AS steepest,"""
_ARE_EVEN = f"""d.sent IN (1, 2, 4, 6, 7)
               AND (d.sent = 1 OR NOT j.falls AND j.greatest_rise < {_MOST_RISE_KWH}
                    AND coalesce(j.steepest, 0) <= 1.089 * d.rated_kw AND d.rated_kw >= 0.1)"""


def _judged(has_registers: bool) -> str:
    sent = "CASE WHEN uf IS NULL THEN 0 ELSE 1 END"
    if has_registers:
        sent += " + CASE WHEN rif IS NULL THEN 0 ELSE 2 END + CASE WHEN rof IS NULL THEN 0 ELSE 4 END"
    before = ", lag(ril) OVER o AS prev_in, lag(rol) OVER o AS prev_out" if has_registers else ""
    is_silent = "j.id IS NULL" if has_registers else "(j.id IS NULL AND d.sent < 2)"
    return f"""
w AS MATERIALIZED (
    SELECT *, {_start_of("first", DAY_US)} AS day, lag(last) OVER o AS prev{before}
    FROM pieces WINDOW o AS (PARTITION BY id ORDER BY first)
),
judged AS (
    SELECT id, min({sent}) AS least_sent, max({sent}) AS most_sent,{_OF_REGISTERS if has_registers else ""}
           coalesce(max(widest) FILTER (WHERE first >= 0), 0) AS widest,
           max(last) FILTER (WHERE first < least($4, $6)) AS last,
           min(first) FILTER (WHERE first >= least($4, $6)) AS next
    FROM w GROUP BY id
),
base AS MATERIALIZED (
    SELECT d.id, d.key, d.declared, d.sent = 1 AS by_interval, j.last, j.next, {is_silent} AS is_silent, j.widest,
           j.least_sent = d.sent AND j.most_sent = d.sent AND {_ARE_EVEN if has_registers else "d.sent = 1"} AS is_even
    FROM d LEFT JOIN judged j USING (id)
)
"""  # noqa: S608


_DECLARED = """
spaced AS (
    SELECT id, NULL::int8 AS day, declared AS us FROM base WHERE false
),
plain AS MATERIALIZED (
    SELECT id, key, by_interval, declared, last, next,
           is_silent OR is_even AND (NOT by_interval OR 2 * widest <= 3 * declared) AS is_plain,
           declared AS least_us, declared AS greatest_us,
           next < least($4, $6) + declared OR 2 * (next - last) <= 3 * declared AS is_near
    FROM base
)
"""
_FIRST_DAY = _start_of("0", DAY_US)
_DAILY = f"""
daily AS MATERIALIZED (
    SELECT *, NOT begins AND n > 3 AND 2 * greatest_gap <= 3 * least_gap AS is_regular,
           CASE WHEN n > 3 THEN day ELSE day - {DAY_US} END AS since
    FROM (
        SELECT id, day, sum(n) AS n, max(widest) AS widest, bool_or(prev IS NULL AND first >= 0) AS begins,
               greatest(max(widest), max(first - prev)) AS greatest_gap,
               least(min(least), min(first - prev) FILTER (WHERE prev >= day)) AS least_gap
        FROM w WHERE first >= {_FIRST_DAY} AND first < $17 GROUP BY id, day
    ) AS each
)
"""  # noqa: S608


def _observed(kind: Kind, days: Days, has_registers: bool) -> str:
    """Hours are taken apart: the interval is the median of what their quarter hours show.

    The interval of a register's day matters on the last day only: it says until when readings are expected.
    """
    last_day = _start_of("base.last", DAY_US)
    return f"""
sought AS MATERIALIZED (
    SELECT id, day, since FROM daily JOIN base USING (id)
    WHERE is_even AND NOT is_regular AND (by_interval OR day = {last_day})
),
shown AS (
    SELECT DISTINCT id, each AS day FROM sought CROSS JOIN LATERAL (VALUES (since), (day)) AS v(each)
),
grouped AS (
    SELECT w.id, {_start_of("w.first", QUARTER_US)} AS quarter, min(w.first) AS first, max(w.last) AS last,
           sum(w.n)::int8 AS n
    FROM shown JOIN w USING (id, day) WHERE NOT w.is_composed GROUP BY 1, 2
    UNION ALL SELECT h.id, s.* FROM shown JOIN composed AS h USING (id, day) JOIN d USING (id) CROSS JOIN LATERAL (
        SELECT {_START} AS quarter, {_START} + first_us, {_START} + last_us, readings::int8
        FROM {kind.quarter_table} WHERE {kind.id_column} = d.name AND {days.months}
          AND bucket >= {_at("h.start")} AND bucket < {_at("(h.start + h.length)")} OFFSET 0
    ) AS s WHERE h.is_usable AND {"num_nonnulls(uf, rif, rof) > 0" if has_registers else "uf IS NOT NULL"}
),
gaps AS (
    SELECT id, day, (last - first) / (n - 1) AS gap, n - 1 AS n FROM sought JOIN grouped USING (id)
    WHERE quarter >= since AND quarter < day + {DAY_US} AND n > 1
    UNION ALL SELECT id, day, first - lag(last) OVER (PARTITION BY id, day ORDER BY quarter), 1
    FROM sought JOIN grouped USING (id) WHERE quarter >= since AND quarter < day + {DAY_US}
),
observed AS MATERIALIZED (
    SELECT id, day, min(gap) AS us FROM (
        SELECT id, day, gap, sum(n) OVER (PARTITION BY id, day ORDER BY gap) AS passed,
               sum(n) OVER (PARTITION BY id, day) AS whole
        FROM gaps WHERE gap IS NOT NULL) AS g
    WHERE whole >= 3 AND 2 * passed >= whole GROUP BY id, day
)
"""  # noqa: S608


_OBSERVED = f"""
spaced AS MATERIALIZED (
    SELECT id, daily.day, CASE WHEN NOT is_regular THEN coalesce(us, $21) END AS us, least_gap, greatest_gap,
           is_regular OR NOT by_interval AND daily.day IS DISTINCT FROM {_start_of("base.last", DAY_US)}
           OR since >= {_FIRST_DAY} AND (NOT by_interval OR 2 * daily.widest <= 3 * coalesce(us, $21)) AS is_plain
    FROM daily JOIN base USING (id) LEFT JOIN observed USING (id, day)
),
plain AS MATERIALIZED (
    SELECT b.id, key, by_interval, NULL::int8 AS declared, last, next,
           is_silent OR is_even AND coalesce(each.is_plain, true)
               AND NOT coalesce(by_interval AND next >= $17 AND last < $4
                   AND (next - {_LONGEST_US} < $4 OR 2 * (next - last) <= 3 * {_LONGEST_US}), false) AS is_plain,
           CASE WHEN last >= {_FIRST_DAY} THEN coalesce(own.us, own.least_gap) ELSE 0 END AS least_us,
           CASE WHEN last >= {_FIRST_DAY} THEN coalesce(own.us, own.greatest_gap) ELSE {_LONGEST_US} END AS greatest_us,
           next < $17 AND (after.us IS NULL OR next - after.us < least($4, $6) OR 2 * (next - last) <= 3 * after.us)
               AS is_near
    FROM base b LEFT JOIN (SELECT id, bool_and(is_plain) AS is_plain FROM spaced GROUP BY id) AS each USING (id)
    LEFT JOIN spaced own ON own.id = b.id AND own.day = {_start_of("b.last", DAY_US)}
    LEFT JOIN spaced after ON after.id = b.id AND after.day = {_start_of("b.next", DAY_US)}
)
"""  # noqa: S608
_ENDS = """
ends AS MATERIALIZED (
    SELECT id, key, by_interval, declared, is_plain,
           CASE WHEN is_open AND 2 * ($6 - last) <= 3 * least_us THEN last ELSE least($4, $6) END AS until,
           is_plain AND (NOT is_open OR 2 * ($6 - last) <= 3 * least_us OR 2 * ($6 - last) > 3 * greatest_us) AS is_sure
    FROM (SELECT *, coalesce(last < least($4, $6)
                             AND (next IS NULL OR by_interval AND NOT is_near), false) AS is_open FROM plain) AS p
)
"""
_INTERVALS = "greatest(uf, 0) AS cross_in, greatest(-uf, 0) AS cross_out, ui AS rest_in, uo AS rest_out"
_BOTH = f"""CASE WHEN e.by_interval THEN greatest(uf, 0) ELSE {_rise("rif", "prev_in")} END AS cross_in,
           CASE WHEN e.by_interval THEN greatest(-uf, 0) ELSE {_rise("rof", "prev_out")} END AS cross_out,
           CASE WHEN e.by_interval THEN ui ELSE {_rise("ril", "rif")} END AS rest_in,
           CASE WHEN e.by_interval THEN uo ELSE {_rise("rol", "rof")} END AS rest_out"""


def _parts(has_registers: bool) -> str:
    return f"""
segments AS (
    SELECT e.key, e.until, w.first, w.last,
           CASE WHEN NOT e.by_interval THEN w.prev
                WHEN e.declared IS NULL AND w.first >= $17 THEN w.first
                WHEN 2 * (w.first - w.prev) <= 3 * coalesce(e.declared, spaced.us) THEN w.prev
                WHEN coalesce(e.declared, spaced.us) IS NULL THEN w.prev
                ELSE w.first - coalesce(e.declared, spaced.us) END AS start,
           {_BOTH if has_registers else _INTERVALS}
    FROM ends e JOIN w USING (id) LEFT JOIN spaced ON spaced.id = w.id AND spaced.day = w.day WHERE e.is_sure
),
crossing AS (
    SELECT *, coalesce(width_bucket(start, $5), k) AS k_start, width_bucket(first - 1, $5) AS k_end, ($5)[k] AS edge
    FROM (SELECT *, width_bucket(first, $5) AS k FROM segments) AS s
),
near AS (
    SELECT key, k, sum(cross_in - before_in + rest_in) AS units_in, sum(cross_out - before_out + rest_out) AS units_out,
           sum(CASE WHEN k_start < k_end THEN cross_in + cross_out ELSE 0 END) AS boundary,
           sum(greatest(0, least(last, until)
                           - CASE WHEN k_start = k THEN greatest(coalesce(start, first), 0) ELSE edge END)) AS covered,
           sum(before_in) FILTER (WHERE k_start < k) AS before_in, sum(before_out) AS before_out,
           sum(greatest(0, least(edge, until) - start)) FILTER (WHERE k_start < k) AS before_covered
    FROM (
        SELECT *, CASE WHEN k_start = k THEN 0 ELSE {_until("edge", "cross_in")} END AS before_in,
               CASE WHEN k_start = k THEN 0 ELSE {_until("edge", "cross_out")} END AS before_out
        FROM crossing WHERE k_start >= k - 1 OFFSET 0
    ) AS c GROUP BY key, k
),
parts AS (
    SELECT key, k, units_in, units_out, boundary, covered FROM near
    UNION ALL
    SELECT key, k - 1, before_in, before_out, boundary, before_covered FROM near WHERE before_in IS NOT NULL
    UNION ALL
    SELECT key, k_end, cross_in, cross_out, 0, greatest(0, least(first, until) - greatest(start, 0))
    FROM crossing WHERE k_start < k - 1 AND k_start = k_end
    UNION ALL
    SELECT key, edge, {_part("cross_in")}, {_part("cross_out")}, cross_in + cross_out,
           greatest(0, least(first, until, ($5)[edge + 1]) - greatest(start, ($5)[edge]))
    FROM (SELECT key, until, first, start, cross_in, cross_out, k_start, k_end FROM crossing
          WHERE k_start < k - 1 AND k_start < k_end) AS c
    CROSS JOIN LATERAL generate_series(greatest(k_start, 1), least(k_end, cardinality($5) - 1)) AS edge
    UNION ALL
    SELECT key, k, rest_in, rest_out, 0, greatest(0, least(last, until) - first) FROM crossing WHERE k_start < k - 1
)
"""  # noqa: S608


_SUMS = f"""
SELECT key, k, true AS is_known, sum(units_in), sum(units_out), sum(boundary), sum(covered),
       0::numeric AS expected, NULL::text AS name
FROM parts WHERE k BETWEEN 1 AND cardinality($5) - 1 GROUP BY key, k
UNION ALL
SELECT key, k, false, 0, 0, 0, 0, sum(greatest(0, least(($5)[k + 1], until) - ($5)[k])), NULL
FROM ends CROSS JOIN LATERAL generate_series(1, cardinality($5) - 1) AS k WHERE is_sure GROUP BY key, k
UNION ALL
SELECT ends.key, 0, false, 0, 0, 0, 0, 0, name FROM ends JOIN d USING (id) WHERE is_sure IS NOT TRUE
UNION ALL
SELECT 0, -1, false, 0, 0, 0, 0, day, NULL FROM (SELECT DISTINCT {_start_of("since", DAY_US)} AS day FROM spans) AS days
WHERE NOT day = ANY ($16)
"""  # noqa: S608
