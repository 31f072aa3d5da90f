"""One vehicle: energy on both sides, state of charge, power, temperature, sessions, and what the figures rest on."""

from scripts.dashboards.model import Dashboard, Panel, Row, Variable, sql

_VEHICLE = "${vehicle:sqlstring}"
_PERIOD = "$__timeFrom()::timestamptz, $__timeTo()::timestamptz"
_ELAPSED_S = "extract(epoch FROM least(now(), $__timeTo()::timestamptz) - $__timeFrom()::timestamptz)"
_METERS = f"""(
  SELECT DISTINCT meter_id FROM meter_assignment_interval WHERE vehicle_id = {_VEHICLE}
    AND valid_from < $__timeTo()::timestamptz AND coalesce(valid_to, 'infinity') > $__timeFrom()::timestamptz
) AS m"""
_ASSIGNED = f"""{_METERS} CROSS JOIN LATERAL assigned_energy_by_quarter(m.meter_id, {_PERIOD}) AS q
WHERE q.vehicle_id = {_VEHICLE}"""

_NOW = sql(f"""
SELECT soc AS "state of charge", power_kw AS "power", battery_temp AS "battery", odometer_km AS "odometer",
  age_s AS "age" FROM vehicle_live WHERE vehicle_id = {_VEHICLE}
""")
_DC_TOTAL = sql(f"""
SELECT sum(kwh_in) AS "DC into the battery", sum(kwh_out) AS "DC out of the battery",
  sum(boundary_kwh) AS "in intervals across an edge", sum(suspect_kwh) AS "withheld as suspect",
  sum(resets) AS "resets", sum(covered_s) / {_ELAPSED_S} AS "coverage"
FROM energy_by_quarter('vehicle', {_VEHICLE}, {_PERIOD})
""")
_AC_TOTAL = sql(f"""
SELECT coalesce(sum(q.kwh), 0) AS "AC of assigned meters", count(DISTINCT m.meter_id) AS "meters" FROM {_ASSIGNED}
""")
_DC = sql(f"""
SELECT $__timeGroupAlias(ts, ${{bucket}}), sum(kwh_in) AS "DC into the battery",
  -sum(kwh_out) AS "DC out of the battery"
FROM energy_by_quarter('vehicle', {_VEHICLE}, {_PERIOD}) GROUP BY 1 ORDER BY 1
""")
_AC = sql(f"""
SELECT $__timeGroupAlias(q.ts, ${{bucket}}), sum(q.kwh) AS "AC of assigned meters"
FROM {_ASSIGNED} GROUP BY 1 ORDER BY 1
""")


def _gauge(column: str) -> str:
    """The mean of each interval of the chart, with the peaks."""
    return f"""
SELECT $__timeGroupAlias(ts, $__interval), avg({column}) AS "mean", min({column}) AS "lowest",
  max({column}) AS "highest" FROM vehicle_telemetry_history
WHERE vehicle_id = {_VEHICLE} AND $__timeFilter(ts) AND {column} IS NOT NULL GROUP BY 1 ORDER BY 1
"""


_COVERED = sql(f"""
SELECT $__timeGroupAlias(ts, 1h), sum(covered_s) / 3600 AS "covered"
FROM energy_by_quarter('vehicle', {_VEHICLE}, {_PERIOD}) GROUP BY 1 ORDER BY 1
""")
_SESSIONS = sql(f"""
SELECT started_at AS "begin", ended_at AS "end", kwh_ac AS "AC", kwh_dc AS "DC", kwh_ac - kwh_dc AS "losses",
  mean_kw AS "mean power", array_to_string(meter_ids, ', ') AS "meters", open_start OR open_end AS "reaches an edge"
FROM charging_sessions({_VEHICLE}, {_PERIOD}) ORDER BY started_at DESC
""")
_KWH = {"AC": "kwatth", "DC": "kwatth", "losses": "kwatth", "mean power": "kwatt"}

DASHBOARD = Dashboard(
    uid="fleet-vehicle",
    title="Vehicle",
    description="Energy by the rules of docs/figures.md, and what it rests on: coverage, edges, resets.",
    variables=[
        Variable("vehicle", "Vehicle", "SELECT vehicle_id FROM vehicle_live ORDER BY 1"),
        Variable("bucket", "Bucket", "1h,15m,24h", is_list=True),
    ],
    period="now-24h",
    refresh="1m",
    rows=[
        Row(
            "Now and in this period",
            [
                Panel(
                    "stat",
                    "Latest state",
                    [_NOW],
                    width=24,
                    height=4,
                    units={
                        "state of charge": "percent",
                        "power": "kwatt",
                        "battery": "celsius",
                        "odometer": "lengthkm",
                        "age": "s",
                    },
                ),
                Panel(
                    "stat",
                    "DC",
                    [_DC_TOTAL],
                    unit="kwatth",
                    width=18,
                    height=4,
                    units={"resets": "none", "coverage": "percentunit"},
                ),
                Panel("stat", "AC", [_AC_TOTAL], width=6, height=4, units={"AC of assigned meters": "kwatth"}),
            ],
        ),
        Row(
            "Energy",
            [
                Panel("timeseries", "AC and DC", [_DC, _AC], unit="kwatth", width=16, look="bars"),
                Panel(
                    "timeseries",
                    "Covered share of each hour",
                    [_COVERED],
                    unit="percentunit",
                    width=8,
                    look="bars",
                    description="The part of the hour in which energy is known; less than 100 % is a gap.",
                ),
            ],
        ),
        Row(
            "Battery",
            [
                Panel("timeseries", "State of charge", [sql(_gauge("soc"))], unit="percent", width=8),
                Panel("timeseries", "Temperature", [sql(_gauge("battery_temp"))], unit="celsius", width=8),
                Panel("timeseries", "Power", [sql(_gauge("power_kw"))], unit="kwatt", width=8),
            ],
        ),
        Row("Sessions", [Panel("table", "Charging sessions", [_SESSIONS], width=24, height=10, units=_KWH)]),
    ],
)
