"""AC and DC of the quarter hours in which both sides of charging can be compared, in one statement. Pure.

It starts from the summaries of meters that drew energy, which are few, and looks up their neighbours and those of the
vehicle by key. The energy of a quarter hour is that of the energy curve: an interval across one of its edges is divided
by time, in whole units. `docs/figures.md` says which quarter hours are compared; what would need a judgement is not.
"""

from datetime import timedelta

from api.energy.interval import QUARTER_US
from api.period import Period
from bridge.contract import METER, VEHICLE, Kind

_COLUMNS = (
    "first_us, last_us, coalesce(widest_us, 0) AS widest, readings, is_even, interval_first AS uf, "
    "coalesce(interval_in, 0) AS ui, coalesce(interval_out, 0) AS uo, register_in_first AS rif, "
    "register_in_last AS ril, register_out_first AS rof, register_out_last AS rol, rises_in, "
    "coalesce(rises_out, 0) AS rises_out, coalesce(steepest_kw, 0) AS steepest"
)
_QUARTER = "interval '15 minutes'"
_MARGIN = timedelta(minutes=15)


def efficiency_sql(period: Period) -> str:
    """The statement about the whole quarter hours of a period.

    $1 are meters and $2 the key of each, $3 vehicles and $4 theirs; $5 is the begin of the first quarter hour and $6
    the end of the last one, $7 until when both kinds are summarized; $8 are the starts of detached days; $9 is the
    interval of devices that declare none, microseconds.

    Rows: key, energy that its meters drew, of this the compared energy, the vehicles' energy (units), how many quarter
    hours are compared, and of how many vehicles.
    """
    meter, vehicle = _Side(METER, period), _Side(VEHICLE, period)
    return f"""
WITH m AS MATERIALIZED (
    SELECT g.id, g.key, coalesce((d.interval_s * 1e6)::int8, $9::int8) AS us,
           coalesce(d.rated_kw, {METER.rated_kw}) AS kw
    FROM unnest($1::text[], $2::int[]) AS g(id, key) LEFT JOIN device d ON d.kind = 'meter' AND d.id = g.id
), v AS MATERIALIZED (
    SELECT g.id, g.key, coalesce((d.interval_s * 1e6)::int8, $9::int8) AS us,
           coalesce(d.rated_kw, {VEHICLE.rated_kw}) AS kw
    FROM unnest($3::text[], $4::int[]) AS g(id, key) LEFT JOIN device d ON d.kind = 'vehicle' AND d.id = g.id
), a AS MATERIALIZED (
    SELECT meter_id, vehicle_id, valid_from, valid_to
    FROM (SELECT meter_id, vehicle_id, valid_from, coalesce(
              lead(valid_from) OVER (PARTITION BY meter_id ORDER BY valid_from), 'infinity') AS valid_to
          FROM meter_assignment WHERE valid_from < $6) AS s
    WHERE vehicle_id IS NOT NULL AND valid_to > $5
), drew AS MATERIALIZED (
    SELECT m.key, m.id, m.us, m.kw, b.*
    FROM m CROSS JOIN LATERAL (
        SELECT bucket, {_COLUMNS} FROM meter_quarter
        WHERE meter_id = m.id AND bucket >= $5 AND bucket < least($6, $7) AND {period.days_sql("bucket")}
          AND (interval_first > 0 OR interval_in > 0 OR rises_in > 0
               OR (register_in_first IS NOT NULL AND readings = 1))
        OFFSET 0
    ) AS b
    WHERE date_trunc('day', bucket, 'UTC') <> ALL ($8::timestamptz[])
      AND NOT EXISTS (SELECT FROM meter_quarter_dirty AS x WHERE x.meter_id = m.id AND x.bucket = b.bucket)
), ac AS MATERIALIZED (
    SELECT b.key, b.id, b.bucket, e.is_complete,
           CASE WHEN e.is_complete THEN e.units WHEN NOT b.is_even THEN 0
                WHEN b.rif IS NULL THEN greatest(b.uf, 0) + b.ui
                ELSE {_units("b.ril")} - {_units("b.rif")} END AS units
    FROM drew b
    {meter.neighbours}
    CROSS JOIN LATERAL (SELECT {meter.complete} AS is_complete, {meter.energy} AS units) AS e
), shared AS MATERIALIZED (
    SELECT a.meter_id, a.vehicle_id, o.valid_from, o.valid_to
    FROM a JOIN a AS o ON o.vehicle_id = a.vehicle_id
    WHERE o.meter_id <> a.meter_id AND o.valid_from < a.valid_to AND o.valid_to > a.valid_from
), fed AS MATERIALIZED (
    SELECT ac.key, ac.bucket, ac.units, a.vehicle_id
    FROM ac JOIN a ON a.meter_id = ac.id
    WHERE ac.is_complete AND ac.units > 0
      AND a.valid_from <= ac.bucket AND a.valid_to >= ac.bucket + {_QUARTER}
      AND NOT EXISTS (SELECT FROM shared AS o WHERE o.meter_id = a.meter_id AND o.vehicle_id = a.vehicle_id
                      AND o.valid_from < ac.bucket + {_QUARTER} AND o.valid_to > ac.bucket)
), compared AS (
    SELECT fed.key, fed.units AS ac, e.units AS dc, v.id
    FROM fed JOIN v ON v.id = fed.vehicle_id AND v.key = fed.key
    CROSS JOIN LATERAL (
        SELECT v.us, v.kw, v.id, bucket, {_COLUMNS} FROM vehicle_quarter
        WHERE vehicle_id = v.id AND bucket = fed.bucket AND {period.days_sql("bucket")} OFFSET 0
    ) AS b
    {vehicle.neighbours}
    CROSS JOIN LATERAL (SELECT {vehicle.complete} AS is_complete, {vehicle.energy} AS units) AS e
    WHERE e.is_complete
)
SELECT key, coalesce(t.units, 0) AS units, coalesce(s.ac, 0) AS ac, coalesce(s.dc, 0) AS dc,
       coalesce(s.quarters, 0) AS quarters, coalesce(s.vehicles, 0) AS vehicles
FROM (SELECT key, sum(units) AS units FROM ac GROUP BY key) AS t
LEFT JOIN (SELECT key, sum(ac) AS ac, sum(dc) AS dc, count(*) AS quarters, count(DISTINCT id) AS vehicles
           FROM compared GROUP BY key) AS s USING (key)
"""  # noqa: S608


class _Side:
    """The texts about a quarter hour `b` of one kind and the summaries before (`p`) and after it (`n`)."""

    def __init__(self, kind: Kind, period: Period) -> None:
        self.neighbours = "\n".join(_neighbour(kind, period, *one) for one in (("p", "-"), ("n", "+")))
        self.complete = f"coalesce({' AND '.join([*_SAME, *_WITHIN, *_ONE_WAY, _clean(kind)])}, false)"
        self.energy = (
            f"{_INTO} - div({_INTO} * ({QUARTER_US} - p.last_us), {_INTO_US}) "
            f"+ CASE WHEN b.rif IS NULL THEN b.ui ELSE {_units('b.ril')} - {_units('b.rif')} END "
            f"+ div({_OUT_OF} * ({QUARTER_US} - b.last_us), {_OUT_OF_US})"
        )


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
_LIKELY_KW = "1.1 * b.kw"
_WITHIN = (
    f"CASE WHEN b.rif IS NULL THEN b.uf >= 0 AND n.uf >= 0"
    f" AND 2::int8 * greatest(b.widest, {_INTO_US}, {_OUT_OF_US}) <= 3 * b.us"
    f" ELSE {_INTO} >= 0 AND {_OUT_OF} >= 0 AND b.steepest <= {_LIKELY_KW}"
    f" AND {_INTO}::float8 / 1e12 * (3.6e9 / {_INTO_US}) <= {_LIKELY_KW}"
    f" AND {_OUT_OF}::float8 / 1e12 * (3.6e9 / {_OUT_OF_US}) <= {_LIKELY_KW} END",
)
_ONE_WAY = (
    "CASE WHEN b.rof IS NULL THEN coalesce(b.uf, 0) >= 0 AND coalesce(n.uf, 0) >= 0 AND b.uo = 0"
    " ELSE b.rises_out = 0 AND p.rol = b.rof AND b.rol = n.rof END",
)


def _neighbour(kind: Kind, period: Period, name: str, sign: str) -> str:
    around = Period(period.start - _MARGIN, period.end + _MARGIN)
    return f"""LEFT JOIN LATERAL (
        SELECT {_COLUMNS} FROM {kind.quarter_table}
        WHERE {kind.id_column} = b.id AND bucket = b.bucket {sign} {_QUARTER} AND bucket < $7
          AND {around.days_sql("bucket")} OFFSET 0
    ) AS {name} ON true"""  # noqa: S608


def _clean(kind: Kind) -> str:
    return (
        f"NOT EXISTS (SELECT FROM {kind.dirty_table} AS x WHERE x.{kind.id_column} = b.id "
        f"AND x.bucket BETWEEN b.bucket - {_QUARTER} AND b.bucket + {_QUARTER})"
    )
