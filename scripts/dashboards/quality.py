"""How good the data is: silence, rejects, warnings, conflicts, late readings, coverage, withheld energy."""

from scripts.dashboards.fleet import OF_SITE, SILENT, SITES
from scripts.dashboards.model import Dashboard, Panel, Row, promql, sql

_LIVE = """(
  SELECT 'vehicle' AS kind, vehicle_id AS id, site, age_s, silent, ts FROM vehicle_live
  UNION ALL SELECT 'meter', meter_id, site, age_s, silent, ts FROM meter_live
) AS live"""
_PERIOD = "$__timeFrom()::timestamptz, $__timeTo()::timestamptz"
_ELAPSED_S = "extract(epoch FROM least(now(), $__timeTo()::timestamptz) - $__timeFrom()::timestamptz)"

_SILENT_COUNT = sql(f"""
SELECT count(*) FILTER (WHERE kind = 'vehicle') AS "silent vehicles",
  count(*) FILTER (WHERE kind = 'meter') AS "silent meters",
  (SELECT count(*) FROM device d WHERE {OF_SITE} AND NOT EXISTS (
    SELECT FROM vehicle_live WHERE d.kind = 'vehicle' AND vehicle_id = d.id
    UNION ALL SELECT FROM meter_live WHERE d.kind = 'meter' AND meter_id = d.id)) AS "declared, never reported"
FROM {_LIVE} WHERE {SILENT} AND {OF_SITE}
""")
_LATE_COUNT = sql("""
SELECT (SELECT count(*) FROM (SELECT FROM vehicle_quarter_dirty LIMIT 100000) AS d) AS "late, vehicles",
  (SELECT count(*) FROM (SELECT FROM meter_quarter_dirty LIMIT 100000) AS d) AS "late, meters"
""")
_SILENT = sql(f"""
SELECT kind, id AS "device", site, ts AS "latest reading", age_s AS "age"
FROM {_LIVE} WHERE {SILENT} AND {OF_SITE} ORDER BY age_s DESC LIMIT 200
""")
_CONFLICTS = sql("""
SELECT $__timeGroupAlias(received_at, 1h), kind AS metric, count(*) AS "conflicts"
FROM reading_conflict WHERE $__timeFilter(received_at) GROUP BY 1, 2 ORDER BY 1
""")
_CONFLICTS_OF = sql("""
SELECT kind, device, count(*) AS "conflicts", max(received_at) AS "last" FROM reading_conflict
WHERE $__timeFilter(received_at) GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 50
""")
_LATE = sql("""
SELECT 'vehicle' AS kind, vehicle_id AS "device", count(*) AS "marks" FROM vehicle_quarter_dirty GROUP BY 2
UNION ALL SELECT 'meter', meter_id, count(*) FROM meter_quarter_dirty GROUP BY 2 ORDER BY 3 DESC LIMIT 50
""")
_COVERAGE = sql(f"""
SELECT kind, id AS "device", site, coalesce(sum(covered_s), 0) / {_ELAPSED_S} AS "coverage",
  coalesce(sum(suspect_kwh), 0) AS "withheld as suspect", coalesce(sum(resets), 0) AS "resets"
FROM {_LIVE} LEFT JOIN LATERAL energy_by_quarter(kind, id, {_PERIOD}) AS q ON true
WHERE {OF_SITE} GROUP BY 1, 2, 3 ORDER BY 4, 5 DESC LIMIT 100
""")
_UNASSIGNED = sql(f"""
SELECT meter_id AS "meter", site, sum(q.kwh_in) AS "unassigned"
FROM meter_live CROSS JOIN LATERAL assigned_energy_by_quarter(meter_id, {_PERIOD}) AS q
WHERE q.vehicle_id IS NULL AND {OF_SITE} GROUP BY 1, 2 HAVING sum(q.kwh_in) > 0 ORDER BY 3 DESC LIMIT 100
""")

DASHBOARD = Dashboard(
    uid="fleet-quality",
    title="Data quality",
    description="The API's GET /v1/quality has the same by device, with what was refused and implausible.",
    variables=[SITES],
    period="now-24h",
    refresh="1m",
    rows=[
        Row(
            "What arrives",
            [
                Panel("stat", "Silent now", [_SILENT_COUNT], width=14, height=4),
                Panel(
                    "stat",
                    "Quarter hours to summarize again",
                    [_LATE_COUNT],
                    width=10,
                    height=4,
                    description="Marks of late readings that the keeper has not worked off yet, counted up to 100,000.",
                ),
                Panel(
                    "timeseries",
                    "Rejects by reason",
                    [
                        promql("sum by (reason) (rate(fleet_rejected_total[$__rate_interval])) > 0", "{{reason}}"),
                        promql("sum(rate(fleet_rejects_not_kept_total[$__rate_interval]))", "counted only"),
                    ],
                    unit="cps",
                ),
                Panel(
                    "timeseries",
                    "Warnings by code",
                    [promql("sum by (code) (rate(fleet_warnings_total[$__rate_interval]))", "{{code}}")],
                    unit="cps",
                ),
                Panel(
                    "timeseries",
                    "Share of rejected items and of duplicates",
                    [
                        promql(
                            """sum by (outcome) (rate(fleet_readings_total{outcome!="stored"}[$__rate_interval]))
                            / on () group_left () sum(rate(fleet_readings_total[$__rate_interval]))""",
                            "{{outcome}}",
                        )
                    ],
                    unit="percentunit",
                ),
                Panel(
                    "timeseries",
                    "Conflicts by hour",
                    [_CONFLICTS],
                    look="stacked",
                    description="Readings with the device and time of a stored one, and other values.",
                ),
            ],
        ),
        Row(
            "Devices",
            [
                Panel("table", "Silent devices", [_SILENT], height=10, units={"age": "s"}),
                Panel("table", "Devices with conflicts", [_CONFLICTS_OF], width=6, height=10),
                Panel("table", "Devices with late readings", [_LATE], width=6, height=10),
            ],
        ),
        Row(
            "Energy of the chosen sites (about 20 ms a device and day, when this row is opened)",
            [
                Panel(
                    "table",
                    "Lowest coverage, most withheld energy",
                    [_COVERAGE],
                    width=14,
                    height=12,
                    units={"coverage": "percentunit", "withheld as suspect": "kwatth"},
                ),
                Panel("table", "Unassigned energy", [_UNASSIGNED], width=10, height=12, units={"unassigned": "kwatth"}),
            ],
            is_collapsed=True,
        ),
    ],
)
