"""Charging sessions of the chosen vehicles."""

from scripts.dashboards.fleet import OF_SITE, SITES
from scripts.dashboards.model import Dashboard, Panel, Row, Variable, sql

_SESSIONS = """(SELECT unnest(ARRAY[${vehicle:sqlstring}]::text[]) AS vehicle_id) AS v
CROSS JOIN LATERAL charging_sessions(v.vehicle_id, $__timeFrom()::timestamptz, $__timeTo()::timestamptz) AS s"""

_TOTAL = sql(f"""
SELECT count(*) AS "sessions", coalesce(sum(kwh_ac), 0) AS "AC", coalesce(sum(kwh_dc), 0) AS "DC",
  sum(kwh_ac - kwh_dc) AS "losses",
  sum(kwh_dc) FILTER (WHERE kwh_ac > 0) / sum(kwh_ac) FILTER (WHERE kwh_dc > 0) AS "DC / AC",
  avg(extract(epoch FROM ended_at - started_at)) AS "mean duration"
FROM {_SESSIONS}
""")
_BY_DAY = sql(f"""
SELECT $__timeGroupAlias(started_at, 24h), sum(kwh_ac) AS "AC", sum(kwh_dc) AS "DC"
FROM {_SESSIONS} GROUP BY 1 ORDER BY 1
""")
_COUNT = sql(f"""
SELECT $__timeGroupAlias(started_at, 24h), count(*) AS "sessions" FROM {_SESSIONS} GROUP BY 1 ORDER BY 1
""")
_BY_METER = sql(f"""
SELECT coalesce(nullif(array_to_string(meter_ids, ', '), ''), 'no meter of ours') AS "meter", count(*) AS "sessions",
  sum(kwh_ac) AS "AC", sum(kwh_dc) AS "DC"
FROM {_SESSIONS} GROUP BY 1 ORDER BY 2 DESC
""")
_LIST = sql(f"""
SELECT v.vehicle_id AS "vehicle", started_at AS "begin", ended_at AS "end",
  extract(epoch FROM ended_at - started_at)::float8 AS "duration", array_to_string(meter_ids, ', ') AS "meters",
  kwh_ac AS "AC", kwh_dc AS "DC", kwh_ac - kwh_dc AS "losses", mean_kw AS "mean power",
  open_start OR open_end AS "reaches an edge"
FROM {_SESSIONS} ORDER BY started_at DESC LIMIT 1000
""")
_KWH = {"AC": "kwatth", "DC": "kwatth", "losses": "kwatth"}

DASHBOARD = Dashboard(
    uid="fleet-sessions",
    title="Sessions",
    description="Computed from the history of the chosen vehicles: more of them and a longer period take longer.",
    variables=[
        SITES,
        Variable(
            "vehicle",
            "Vehicles",
            f"SELECT vehicle_id FROM vehicle_live WHERE {OF_SITE} ORDER BY 1",
            is_multi=True,
        ),
    ],
    period="now-7d",
    refresh="",
    rows=[
        Row(
            "In this period",
            [
                Panel(
                    "stat",
                    "Totals",
                    [_TOTAL],
                    width=24,
                    height=4,
                    units=_KWH | {"DC / AC": "percentunit", "mean duration": "s"},
                ),
                Panel("timeseries", "Energy by UTC day of the begin", [_BY_DAY], unit="kwatth", look="bars"),
                Panel("timeseries", "Sessions by UTC day of the begin", [_COUNT], look="bars"),
            ],
        ),
        Row(
            "Lists",
            [
                Panel("table", "By meter", [_BY_METER], unit="kwatth", width=6, height=14, units={"sessions": "none"}),
                Panel(
                    "table",
                    "Sessions",
                    [_LIST],
                    width=18,
                    height=14,
                    units=_KWH | {"mean power": "kwatt", "duration": "s"},
                    links={"vehicle": "/d/fleet-vehicle?var-vehicle=${__value.raw}"},
                ),
            ],
        ),
    ],
)
