"""The fleet now: who charges, drives, rests and is silent."""

from scripts.dashboards.model import Dashboard, Panel, Row, Variable, promql, sql

SITES = Variable(
    "site",
    "Site",
    """SELECT '-' UNION SELECT site FROM vehicle_live WHERE site IS NOT NULL
UNION SELECT site FROM meter_live WHERE site IS NOT NULL ORDER BY 1""",
    is_multi=True,
    has_all=True,
)
"""Devices without a site are those of the site `-`."""
OF_SITE = "coalesce(site, '-') IN (${site:sqlstring})"
# The register need not declare an interval: then a reading a minute is expected.
SILENT = "coalesce(silent, age_s > 90)"
_POWER = "coalesce(power_kw, kwh_delivered_dc)"

_NOW = sql(f"""
SELECT count(*) AS "vehicles",
  count(*) FILTER (WHERE NOT {SILENT} AND {_POWER} > 0) AS "charging",
  count(*) FILTER (WHERE NOT {SILENT} AND {_POWER} < 0) AS "driving",
  count(*) FILTER (WHERE NOT {SILENT} AND coalesce({_POWER}, 0) = 0) AS "idle",
  count(*) FILTER (WHERE {SILENT}) AS "silent",
  avg(soc) FILTER (WHERE NOT {SILENT}) AS "mean state of charge"
FROM vehicle_live WHERE {OF_SITE}
""")
_METERS = sql(f"""
SELECT count(*) AS "meters", count(*) FILTER (WHERE {SILENT}) AS "silent",
  sum(power_kw) FILTER (WHERE NOT {SILENT}) AS "AC power"
FROM meter_live WHERE {OF_SITE}
""")
_SOC = sql(f"""
SELECT tenth * 10 || ' to ' || tenth * 10 + 10 AS "state of charge, %", count(*) AS "vehicles"
FROM (SELECT least(floor(soc / 10), 9)::int AS tenth FROM vehicle_live WHERE {OF_SITE} AND soc IS NOT NULL) AS v
GROUP BY tenth ORDER BY tenth
""")
_VEHICLES = sql(f"""
SELECT vehicle_id AS "vehicle", site, soc AS "state of charge", power_kw AS "power", battery_temp AS "battery",
  odometer_km AS "odometer", age_s AS "age", {SILENT} AS "silent"
FROM vehicle_live WHERE {OF_SITE} ORDER BY age_s DESC LIMIT 1000
""")
_METER_LIST = sql(f"""
SELECT meter_id AS "meter", site, power_kw AS "power", voltage, kwh_import_register AS "register", age_s AS "age",
  {SILENT} AS "silent"
FROM meter_live WHERE {OF_SITE} ORDER BY age_s DESC LIMIT 1000
""")
_AC = sql(f"""
SELECT $__timeGroupAlias(q.ts, 1h), sum(q.kwh_in) AS "AC drawn", -sum(q.kwh_out) AS "AC fed back"
FROM meter_live CROSS JOIN LATERAL energy_by_quarter('meter', meter_id, $__timeFrom(), $__timeTo()) AS q
WHERE {OF_SITE} GROUP BY 1 ORDER BY 1
""")
_DC = sql(f"""
SELECT $__timeGroupAlias(q.ts, 1h), sum(q.kwh_in) AS "DC into batteries", -sum(q.kwh_out) AS "DC out of batteries"
FROM vehicle_live CROSS JOIN LATERAL energy_by_quarter('vehicle', vehicle_id, $__timeFrom(), $__timeTo()) AS q
WHERE {OF_SITE} GROUP BY 1 ORDER BY 1
""")

DASHBOARD = Dashboard(
    uid="fleet-fleet",
    title="Fleet",
    description="The latest state of all devices, and the energy of the chosen sites.",
    variables=[SITES],
    rows=[
        Row(
            "Now",
            [
                Panel("stat", "Vehicles", [_NOW], width=16, height=5, units={"mean state of charge": "percent"}),
                Panel("stat", "Meters", [_METERS], width=8, height=5, units={"AC power": "kwatt"}),
                Panel(
                    "timeseries",
                    "Readings",
                    [promql("sum by (outcome) (rate(fleet_readings_total[$__rate_interval]))", "{{outcome}}")],
                    unit="cps",
                ),
                Panel("barchart", "State of charge", [_SOC]),
            ],
        ),
        Row(
            "Devices",
            [
                Panel(
                    "table",
                    "Vehicles, the longest silent first",
                    [_VEHICLES],
                    height=12,
                    units={
                        "state of charge": "percent",
                        "power": "kwatt",
                        "battery": "celsius",
                        "odometer": "lengthkm",
                        "age": "s",
                    },
                    links={"vehicle": "/d/fleet-vehicle?var-vehicle=${__value.raw}"},
                ),
                Panel(
                    "table",
                    "Meters, the longest silent first",
                    [_METER_LIST],
                    height=12,
                    units={"power": "kwatt", "voltage": "volt", "register": "kwatth", "age": "s"},
                ),
            ],
        ),
        Row(
            "Energy of the chosen sites (about 20 ms a device and day, when this row is opened)",
            [
                Panel("timeseries", "AC by hour", [_AC], unit="kwatth", look="bars"),
                Panel("timeseries", "DC by hour", [_DC], unit="kwatth", look="bars"),
            ],
            is_collapsed=True,
        ),
    ],
)
