"""AC and DC of the quarter hours in which both sides of charging can be compared, in one statement. Pure.

Meters draw energy in few of their hours: the summaries of hours say in which. Only of these the quarter hours are read,
in the order of their key, and then those in which the vehicles are fed. The energy of a quarter hour is that of the
energy curve: an interval across one of its edges is divided by time, in whole units. `docs/figures.md` says which
quarter hours are compared; what would need a judgement is not.

The statement is composed of steps, one function or text each:

    m, v         the meters and the vehicles, by number
    a, alone     the assignments, and the time in which a meter was the only one of its vehicle
    drawing      the hours in which a meter may draw energy, and the time without summaries of hours
    *_runs       adjoining times of a device as one, so that each quarter hour is read once
    *_quarters   the quarter hours of the runs, and one before and after each run
    *_marks      the quarter hours that have late readings (`is_own`), and their neighbours
    ac           the energy of the meters' quarter hours, and from when to when the intervals are that it is made of
    fed          those whose intervals are a vehicle's, which has no other meter in their time
    compared     with the energy of the vehicle, if its intervals are in that time too
"""

from datetime import timedelta

from api.energy.interval import HOUR_US, QUARTER_US
from api.period import Period
from bridge.contract import METER, VEHICLE, Kind

_COLUMNS = (
    "first_us, last_us, coalesce(widest_us, 0) AS widest, readings, is_even, interval_first AS uf, "
    "coalesce(interval_in, 0) AS ui, coalesce(interval_out, 0) AS uo, register_in_first AS rif, "
    "register_in_last AS ril, register_out_first AS rof, register_out_last AS rol, coalesce(rises_in, 0) AS rises_in, "
    "coalesce(rises_out, 0) AS rises_out, coalesce(steepest_kw, 0) AS steepest"
)
_QUARTER = "interval '15 minutes'"
_HOUR = "interval '1 hour'"
_US = "interval '1 us'"
_MARGIN = timedelta(minutes=15)


def efficiency_sql(period: Period) -> str:
    """The statement about the whole quarter hours of a period.

    $1 are meters and $2 the key of each, $3 vehicles and $4 theirs; $5 is the begin of the first quarter hour and $6
    the end of the last one, $7 until when both kinds are summarized; $8 are the starts of detached days; $9 is the
    interval of devices that declare none, microseconds; $10 is until when the hours of meters are summarized.

    Rows: key, energy that its meters drew, of this the compared energy, the vehicles' energy (units), how many quarter
    hours are compared, and of how many vehicles.
    """
    meters, vehicles = _Side(METER, "m", period), _Side(VEHICLE, "v", period)
    steps = [
        meters.devices("$1::text[], $2::int[]"),
        vehicles.devices("$3::text[], $4::int[]"),
        _ASSIGNED,
        _drawing(period),
        *meters.read("drawing"),
        _drawn(meters),
        _FED,
        *vehicles.read("fed"),
        _compared(vehicles),
    ]
    return f"WITH {', '.join(steps)} {_SUMS}"


_ASSIGNED = f"""
a AS MATERIALIZED (
    SELECT meter_id, vehicle_id, valid_from, valid_to, row_number() OVER () AS k
    FROM (SELECT meter_id, vehicle_id, valid_from, coalesce(
              lead(valid_from) OVER (PARTITION BY meter_id ORDER BY valid_from), 'infinity') AS valid_to
          FROM meter_assignment WHERE valid_from < $6::timestamptz + {_QUARTER}) AS s
    WHERE vehicle_id IS NOT NULL AND valid_to > $5::timestamptz - {_QUARTER}
), alone AS MATERIALIZED (
    -- How many assignments a vehicle has from each change on, and the sum of their numbers: of one the number.
    SELECT a.meter_id, a.vehicle_id, e.since, e.until
    FROM (SELECT at AS since, lead(at) OVER w AS until, sum(count) OVER w AS count, sum(k) OVER w AS k
          FROM (SELECT vehicle_id, at, sum(sign) AS count, sum(sign * k) AS k
                FROM a CROSS JOIN LATERAL (VALUES (valid_from, 1), (valid_to, -1)) AS e(at, sign)
                GROUP BY vehicle_id, at) AS e
          WINDOW w AS (PARTITION BY vehicle_id ORDER BY at)) AS e
    JOIN a ON a.k = e.k
    WHERE e.count = 1
)
"""  # noqa: S608
_FED = f"""
fed AS MATERIALIZED (
    SELECT v.n, v.id, v.key, ac.units, ac.bucket AS since, ac.bucket + {_QUARTER} AS until,
           alone.since AS alone_since, alone.until AS alone_until
    FROM ac JOIN alone ON alone.meter_id = ac.id JOIN v ON v.id = alone.vehicle_id AND v.key = ac.key
    WHERE ac.is_complete AND ac.units > 0 AND alone.since <= ac.begins AND alone.until >= ac.ends
)
"""  # noqa: S608
_SUMS = """
SELECT key, coalesce(t.units, 0) AS units, coalesce(s.ac, 0) AS ac, coalesce(s.dc, 0) AS dc,
       coalesce(s.quarters, 0) AS quarters, coalesce(s.vehicles, 0) AS vehicles
FROM (SELECT key, sum(units) AS units FROM ac GROUP BY key) AS t
LEFT JOIN (SELECT key, sum(ac) AS ac, sum(dc) AS dc, count(*) AS quarters, count(DISTINCT n) AS vehicles
           FROM compared GROUP BY key) AS s USING (key)
"""


def _drawing(period: Period) -> str:
    """The hours with a quarter hour in which a meter may have drawn energy.

    A quarter hour with one reading of a register counts as such, because its energy is in the intervals across its
    edges. One of the two times from this reading to its neighbours, or to the edge of the hour, is at least half of it.
    """
    return f"""
drawing AS MATERIALIZED (
    SELECT m.n, m.id, bucket AS since, bucket + {_HOUR} AS until
    FROM m CROSS JOIN LATERAL (
        SELECT bucket FROM meter_hour
        WHERE meter_id = m.id AND bucket >= date_trunc('hour', $5::timestamptz, 'UTC') AND bucket < least($6, $10)
          AND {_around(period)}
          AND (NOT is_even OR interval_first > 0 OR interval_in > 0 OR register_in_last > register_in_first
               OR (register_in_first IS NOT NULL
                   AND 2 * greatest(widest_us, first_us, {HOUR_US} - last_us) >= {QUARTER_US}))
        OFFSET 0
    ) AS h
    UNION ALL
    SELECT n, id, greatest($5, $10), least($6, $7) FROM m WHERE greatest($5, $10) < least($6, $7)
)
"""  # noqa: S608


def _drawn(side: "_Side") -> str:
    return f"""
ac AS MATERIALIZED (
    SELECT m.key, m.id, b.bucket, e.is_complete, {side.begins} AS begins, {side.ends} AS ends,
           CASE WHEN e.is_complete THEN e.units WHEN NOT b.is_even THEN 0
                WHEN b.rif IS NULL THEN greatest(b.uf, 0) + b.ui
                ELSE {_units("b.ril")} - {_units("b.rif")} END AS units
    FROM m_quarters AS b JOIN m USING (n) {side.neighbours}
    CROSS JOIN LATERAL (SELECT {side.complete} AS is_complete, {side.energy} AS units) AS e
    WHERE b.bucket >= $5 AND b.bucket < $6
      AND (b.uf > 0 OR b.ui > 0 OR b.rises_in > 0 OR (b.rif IS NOT NULL AND b.readings = 1))
      AND date_trunc('day', b.bucket, 'UTC') <> ALL ($8::timestamptz[])
      AND (b.n, b.bucket) NOT IN (SELECT n, bucket FROM m_marks WHERE is_own)
)
"""  # noqa: S608


def _compared(side: "_Side") -> str:
    # Without coalesce the neighbours would be joined as if they had to exist, in an order that takes minutes.
    return f"""
compared AS (
    SELECT fed.key, fed.units AS ac, e.units AS dc, v.n
    FROM fed JOIN v USING (n) JOIN v_quarters AS b ON b.n = fed.n AND b.bucket = fed.since {side.neighbours}
    CROSS JOIN LATERAL (SELECT {side.complete} AS is_complete, {side.energy} AS units) AS e
    WHERE e.is_complete AND coalesce(fed.alone_since <= {side.begins} AND fed.alone_until >= {side.ends}, false)
)
"""  # noqa: S608


class _Side:
    """The steps about one kind, and the texts about a quarter hour `b` and those before (`p`) and after it (`n`)."""

    def __init__(self, kind: Kind, name: str, period: Period) -> None:
        self._kind, self._name, self._around = kind, name, _around(period)
        self.neighbours = (
            f"LEFT JOIN {name}_quarters AS p ON p.n = b.n AND p.following = b.bucket "
            f"LEFT JOIN {name}_quarters AS n ON n.n = b.n AND n.bucket = b.following"
        )
        clean = f"(b.n, b.bucket) NOT IN (SELECT n, bucket FROM {name}_marks)"  # noqa: S608
        conditions = " AND ".join([*_SAME, *_WITHIN, *_ONE_WAY, clean])
        self.complete = f"coalesce({conditions}, false)".replace("$us", f"{name}.us").replace("$kw", f"{name}.kw")
        self.energy = (
            f"{_INTO} - div({_INTO} * ({QUARTER_US} - p.last_us), {_INTO_US}) "
            f"+ CASE WHEN b.rif IS NULL THEN b.ui ELSE {_units('b.ril')} - {_units('b.rif')} END "
            f"+ div({_OUT_OF} * ({QUARTER_US} - b.last_us), {_OUT_OF_US})"
        )
        self.begins = f"CASE b.first_us WHEN 0 THEN b.bucket ELSE p.bucket + p.last_us * {_US} END"
        self.ends = f"n.bucket + n.first_us * {_US}"

    def devices(self, given: str) -> str:
        """The devices, with their declared interval (microseconds) and rated power."""
        return f"""
{self._name} AS MATERIALIZED (
    SELECT g.n::int4 AS n, g.id, g.key, coalesce((d.interval_s * 1e6)::int8, $9::int8) AS us,
           coalesce(d.rated_kw, {self._kind.rated_kw}) AS kw
    FROM unnest({given}) WITH ORDINALITY AS g(id, key, n)
    LEFT JOIN device d ON d.kind = '{self._kind.name}' AND d.id = g.id
)
"""  # noqa: S608

    def read(self, times: str) -> list[str]:
        """The steps that read the quarter hours of times, and the marks of late readings."""
        name, kind = self._name, self._kind
        runs = f"""
{name}_runs AS MATERIALIZED (
    SELECT n, id, min(since) AS since, max(until) AS until
    FROM (SELECT n, id, since, until, count(*) FILTER (WHERE is_first) OVER (PARTITION BY n ORDER BY since) AS run
          FROM (SELECT n, id, since, until, (since <= lag(until) OVER (PARTITION BY n ORDER BY since)
                                             + 2 * {_QUARTER}) IS NOT TRUE AS is_first
                FROM {times}) AS t) AS t
    GROUP BY n, id, run
)
"""  # noqa: S608
        quarters = f"""
{name}_quarters AS MATERIALIZED (
    SELECT r.n, q.*, q.bucket + {_QUARTER} AS following
    FROM {name}_runs AS r CROSS JOIN LATERAL (
        SELECT bucket, {_COLUMNS} FROM {kind.quarter_table}
        WHERE {kind.id_column} = r.id AND bucket >= r.since - {_QUARTER}
          AND bucket < least(r.until + {_QUARTER}, $7) AND {self._around} OFFSET 0
    ) AS q
)
"""  # noqa: S608
        marks = f"""
{name}_marks AS MATERIALIZED (
    SELECT {name}.n, bucket + offset_ AS bucket, offset_ = interval '0' AS is_own
    FROM {kind.dirty_table} JOIN {name} ON {name}.id = {kind.id_column},
         unnest(ARRAY[-{_QUARTER}, interval '0', {_QUARTER}]) AS offset_
    WHERE bucket >= $5::timestamptz - {_QUARTER} AND bucket < $6::timestamptz + {_QUARTER}
)
"""  # noqa: S608
        return [runs, quarters, marks]


def _around(period: Period) -> str:
    """A condition on `bucket` with constants, which prunes partitions: the period and its neighbours."""
    return Period(period.start - _MARGIN, period.end + _MARGIN).days_sql("bucket")


def _units(kwh: str) -> str:
    return f"({kwh}::numeric * 1e12)"


_INTO = f"(CASE WHEN b.rif IS NULL THEN b.uf ELSE {_units('b.rif')} - {_units('p.ril')} END)"
_INTO_US = f"({QUARTER_US} - p.last_us + b.first_us)"
_OUT_OF = f"(CASE WHEN b.rif IS NULL THEN n.uf ELSE {_units('n.rif')} - {_units('b.ril')} END)"
_OUT_OF_US = f"({QUARTER_US} - b.last_us + n.first_us)"
_SAME = (
    "p.is_even AND b.is_even AND n.is_even",
    "(p.rif IS NULL) = (b.rif IS NULL) AND (n.rif IS NULL) = (b.rif IS NULL)",
    "(p.rof IS NULL) = (b.rof IS NULL) AND (n.rof IS NULL) = (b.rof IS NULL)",
)
_LIKELY_KW = "1.1 * $kw"
_WITHIN = (
    f"CASE WHEN b.rif IS NULL THEN b.uf >= 0 AND n.uf >= 0"
    f" AND 2::int8 * greatest(b.widest, {_INTO_US}, {_OUT_OF_US}) <= 3 * $us"
    f" ELSE {_INTO} >= 0 AND {_OUT_OF} >= 0 AND b.steepest <= {_LIKELY_KW}"
    f" AND {_INTO}::float8 / 1e12 * (3.6e9 / {_INTO_US}) <= {_LIKELY_KW}"
    f" AND {_OUT_OF}::float8 / 1e12 * (3.6e9 / {_OUT_OF_US}) <= {_LIKELY_KW} END",
)
_ONE_WAY = (
    "CASE WHEN b.rof IS NULL THEN coalesce(b.uf, 0) >= 0 AND coalesce(n.uf, 0) >= 0 AND b.uo = 0"
    " ELSE b.rises_out = 0 AND p.rol = b.rof AND b.rol = n.rof END",
)
