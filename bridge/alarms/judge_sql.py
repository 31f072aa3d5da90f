"""The statements that measure every device and raise and clear alarms. Pure.

Each statement measures its subjects once, and compares the values with the rules and the open alarms. It writes the
alarms and their notifications together, so a notification is never lost and never without its alarm.
"""

from collections.abc import Sequence

from bridge.alarms.measures import (
    BATTERY_TEMP,
    CLOCK_DRIFT,
    EFFICIENCY,
    LIVE,
    REJECTS,
    RELATIVE_POWER,
    SILENCE,
    SOC,
    SYSTEM,
    VOLTAGE,
    AlarmMeasure,
)
from bridge.contract import KINDS, METER, VEHICLE, Kind

_REPORTED_AT = "coalesce(l.received_at, d.created_at)"
_INTERVAL_S = "coalesce(d.interval_s, $2::float8)"
_LIVE_VALUES = {
    SILENCE.name: f"extract(epoch FROM now() - {_REPORTED_AT}) / {_INTERVAL_S}",
    BATTERY_TEMP.name: "l.battery_temp",
    SOC.name: "l.soc",
    VOLTAGE.name: "l.voltage",
    CLOCK_DRIFT.name: "extract(epoch FROM l.ts - l.received_at)",
}
# Silence while a bridge worked, which alone raises an alarm: least() and greatest() ignore the nulls of no row.
_COUNTED_SILENCE = f"""
extract(epoch FROM least(now(), (SELECT working_until FROM bridge_work))
                   - greatest({_REPORTED_AT}, (SELECT working_since FROM bridge_work))) / {_INTERVAL_S}
"""  # noqa: S608
_WITHOUT_DEVICE = f"CASE measure WHEN '{REJECTS.name}' THEN 'messages that name no device' END"
# The events of the statement are delivered to MQTT, if $1 says so, and to every webhook.
_QUEUE = """
INSERT INTO alarm_delivery (alarm_id, event, target)
SELECT id, event, target FROM {events} AS e CROSS JOIN (
    SELECT 'mqtt' AS target WHERE $1::boolean UNION ALL SELECT id FROM alarm_webhook WHERE disabled_at IS NULL
) AS t
"""


def live_sql(kind: Kind) -> str:
    """Judge the live rows of a kind, and the declared devices that never reported. $2: interval of the others, s."""
    declared = f"(SELECT * FROM device WHERE kind = '{kind.name}')"  # noqa: S608
    subject = f"{kind.live_table} l FULL JOIN {declared} d ON d.id = l.{kind.id_column}"
    device = f"coalesce(l.{kind.id_column}, d.id)"
    measures = [measure for measure in LIVE if kind in measure.kinds]
    counted = {SILENCE.name: f"({_COUNTED_SILENCE})::float8"}
    values = ", ".join(
        f"('{m.name}', ({_LIVE_VALUES[m.name]})::float8, {counted.get(m.name, 'NULL')})" for m in measures
    )
    measured = (
        f"SELECT '{kind.name}' AS kind, {device} AS device, d.site, v.measure, v.value, v.counted "  # noqa: S608
        f"FROM {subject} CROSS JOIN LATERAL (VALUES {values}) AS v(measure, value, counted)"
    )
    return _judge_sql(measured, measures, raising="coalesce(m.counted, m.value)")


def rejects_sql() -> str:
    """Judge the rejects of the last hour. One that names no device counts for the system."""
    kinds = ", ".join(f"'{kind.name}'" for kind in KINDS)
    known = " ".join(
        f"WHEN EXISTS (SELECT FROM {kind.live_table} WHERE {kind.id_column} = r.device) THEN '{kind.name}'"
        for kind in KINDS
    )
    # A device that has its first reading while an alarm without its kind is open remains the subject of that alarm.
    unknown = f"""
    EXISTS (SELECT FROM alarm a WHERE a.cleared_at IS NULL AND a.measure = '{REJECTS.name}'
            AND a.kind IS NULL AND a.device = r.device)
    """
    measured = f"""
    SELECT r.kind, r.device, d.site, '{REJECTS.name}' AS measure, r.value FROM (
        SELECT kind, device, sum(n)::float8 AS value FROM (
            SELECT coalesce(r.kind, CASE WHEN {unknown} THEN NULL {known} END) AS kind, device, n FROM (
                SELECT substring(topic FROM '^fleet/([a-z_]+)/') AS kind, device, count(*) AS n
                FROM rejected_message WHERE received_at > now() - interval '1 hour' GROUP BY 1, 2
            ) AS r WHERE r.kind IS NULL OR r.kind IN ({kinds})
            UNION ALL
            SELECT kind, device, 0 FROM alarm WHERE cleared_at IS NULL AND measure = '{REJECTS.name}'
        ) AS one GROUP BY 1, 2
    ) AS r LEFT JOIN device d ON d.kind = r.kind AND d.id = r.device
    """  # noqa: S608
    return _judge_sql(measured, [REJECTS])


def power_sql(kind: Kind) -> str:
    """Judge the power in the quarter hours from $2 up to $3."""
    spanned = "q.last_us - q.first_us"
    # In floats: the numerics of constants would take most of the time.
    powers = [
        f"{energy} * (3.6e9 / 1e12)::float8 / nullif({spanned}, 0)" for energy in ("q.interval_in", "q.interval_out")
    ]
    measured = f"""
    SELECT '{kind.name}' AS kind, q.device, d.site, '{RELATIVE_POWER.name}' AS measure,
           q.kw / coalesce(d.rated_kw, {kind.rated_kw}) AS value
    FROM (
        SELECT {kind.id_column} AS device, max(greatest(q.steepest_kw, {", ".join(powers)})) AS kw
        FROM {kind.quarter_table} q WHERE bucket >= $2::timestamptz AND bucket < $3::timestamptz GROUP BY 1
    ) AS q LEFT JOIN device d ON d.kind = '{kind.name}' AND d.id = q.device
    """  # noqa: S608
    return _judge_sql(measured, [RELATIVE_POWER])


def efficiency_sql() -> str:
    """Judge the efficiency in the quarter hours from $2 up to $3.

    Energy between the first and the last reading of a quarter hour, over the time between them: the two devices do not
    report at the same seconds. A vehicle counts if each of its meters is assigned to it during the whole period: the
    quarter hours that an assignment's begin or end divides have energy that is not of the same time.
    """
    power = (
        "coalesce(CASE WHEN q.register_in_last >= q.register_in_first "
        "THEN q.register_in_last - q.register_in_first END, q.interval_in / 1e12::float8) "
        "* 3.6e9 / (q.last_us - q.first_us)"
    )
    whole = (
        "q.bucket >= $2::timestamptz AND q.bucket < $3::timestamptz AND q.is_even "
        "AND q.last_us - q.first_us >= 600000000"
    )
    quarters = range(4)
    kw = ", ".join(
        f"sum({power}) FILTER (WHERE q.bucket = $2::timestamptz + {n} * interval '15 minutes') AS kw{n}"
        for n in quarters
    )
    # A row for each device, with its quarter hours side by side: joining quarter hours takes twice as long.
    both = [f"ac.kw{n} >= 1 AND dc.kw{n} IS NOT NULL" for n in quarters]
    ac, dc = (
        " + ".join(f"CASE WHEN {counts} THEN {side}.kw{n} ELSE 0 END" for n, counts in enumerate(both))
        for side in ("ac", "dc")
    )
    measured = f"""
    SELECT 'vehicle' AS kind, e.device, d.site, '{EFFICIENCY.name}' AS measure, e.dc / e.ac AS value FROM (
        SELECT ac.device, {ac} AS ac, {dc} AS dc FROM (
            SELECT a.vehicle_id AS device, {kw}
            FROM {METER.quarter_table} q JOIN (
                SELECT meter_id, vehicle_id, bool_and(valid_from <= $2 AND valid_to IS NULL) OVER vehicle AS is_whole
                FROM (SELECT meter_id, vehicle_id, valid_from,
                             lead(valid_from) OVER (PARTITION BY meter_id ORDER BY valid_from) AS valid_to
                      FROM meter_assignment WHERE valid_from < $3) AS a
                WHERE vehicle_id IS NOT NULL AND (valid_to IS NULL OR valid_to > $2)
                WINDOW vehicle AS (PARTITION BY vehicle_id)
            ) AS a ON a.meter_id = q.meter_id AND a.is_whole
            WHERE {whole} GROUP BY 1
        ) AS ac JOIN (
            SELECT {VEHICLE.id_column} AS device, {kw} FROM {VEHICLE.quarter_table} q WHERE {whole} GROUP BY 1
        ) AS dc ON dc.device = ac.device
        OFFSET 0
    ) AS e LEFT JOIN device d ON d.kind = 'vehicle' AND d.id = e.device WHERE e.ac / 4 >= 1
    """  # noqa: S608
    return _judge_sql(measured, [EFFICIENCY])


def system_sql() -> str:
    """Judge the values $3 of the measures $2, which concern no device."""
    measured = (
        "SELECT NULL::text AS kind, NULL::text AS device, NULL::text AS site, v.measure, v.value "
        "FROM unnest($2::text[], $3::float8[]) AS v(measure, value)"
    )
    return _judge_sql(measured, SYSTEM)


def sweep_sql() -> str:
    """Clear the open alarms that no longer have a rule which applies to them, or whose device is no longer known."""
    known = " OR ".join(
        f"EXISTS (SELECT FROM {kind.live_table} WHERE a.kind = '{kind.name}' AND {kind.id_column} = a.device)"
        for kind in KINDS
    )
    # The device of a reject need not be known.
    gone = f"a.measure <> '{REJECTS.name}' AND a.kind IS NOT NULL AND d.id IS NULL AND NOT ({known})"
    return f"""
    WITH cleared AS (
        UPDATE alarm SET cleared_at = now() WHERE id IN (
            SELECT a.id FROM alarm a LEFT JOIN device d ON d.kind = a.kind AND d.id = a.device
            WHERE a.cleared_at IS NULL AND (({gone}) OR NOT EXISTS (
                SELECT FROM alarm_rule r WHERE r.name = a.rule AND r.enabled AND r.measure = a.measure
                AND {_applies("d")}
            ))
        ) RETURNING id
    ), queued AS ({_QUEUE.format(events="(SELECT id, 'cleared' AS event FROM cleared)")})
    SELECT 0 AS raised, (SELECT count(*) FROM cleared) AS cleared
    """  # noqa: S608


def sweep_pending_sql() -> str:
    """Forget the conditions that no longer have a rule which applies to them."""
    return f"""
    DELETE FROM alarm_pending WHERE (rule, kind, device) NOT IN (
        SELECT a.rule, a.kind, a.device FROM alarm_pending a
        LEFT JOIN device d ON d.kind = a.kind AND d.id = a.device
        JOIN alarm_rule r ON r.name = a.rule AND r.enabled AND r.for_s > 0 AND {_applies("d")}
    )
    """  # noqa: S608


def _applies(site_of: str, subject: str = "a") -> str:
    return (
        f"(r.kind IS NULL OR r.kind = {subject}.kind) AND (r.device IS NULL OR r.device = {subject}.device) "
        f"AND (r.site IS NULL OR r.site = {site_of}.site)"
    )


def _judge_sql(measured: str, measures: Sequence[AlarmMeasure], raising: str = "m.value") -> str:
    """Raise and clear by the rows (kind, device, site, measure, value). A null value is unknown: nothing changes.

    An alarm is raised only if `raising` is beyond the bound as well.
    """
    named = ", ".join(f"('{m.name}', '{m.unit}', '{m.title}')" for m in measures)
    beyond = f"(least(m.value * r.sign, {raising} * r.sign) > r.raise_at * r.sign)"
    returned = "(m.value * r.sign <= r.clear_at * r.sign)"
    rounded = "round(value::numeric, CASE WHEN abs(value) < 100 THEN 2 ELSE 0 END)::float8"
    subject = "coalesce({0}.kind, '') = coalesce(m.kind, '') AND coalesce({0}.device, '') = coalesce(m.device, '')"
    # A rule that is above by a sign of 1 is below by a sign of -1. What was seen before the rule was changed does not
    # count for its time.
    return f"""
    WITH rule AS MATERIALIZED (
        SELECT r.*, CASE direction WHEN 'above' THEN 1 ELSE -1 END AS sign, n.unit, n.title
        FROM alarm_rule r JOIN (VALUES {named}) AS n(measure, unit, title) ON n.measure = r.measure WHERE r.enabled
    ), judged AS MATERIALIZED (
        SELECT r.name, r.measure, r.severity, r.direction, r.raise_at, r.for_s, r.unit, r.title, m.kind, m.device,
               m.site, m.value, a.id, p.since, {beyond} AS is_beyond,
               r.for_s = 0 OR greatest(p.since, r.changed_at) <= now() - r.for_s * interval '1 s'
                   AND p.since IS NOT NULL AS is_due
        FROM ({measured}) AS m
        JOIN rule r ON r.measure = m.measure AND {_applies("m", "m")}
            AND ({beyond} OR {returned} OR r.for_s > 0 AND m.value IS NOT NULL)
        LEFT JOIN alarm a ON a.cleared_at IS NULL AND a.rule = r.name AND {subject.format("a")}
        LEFT JOIN alarm_pending p ON p.rule = r.name AND p.kind = coalesce(m.kind, '')
            AND p.device = coalesce(m.device, '')
        WHERE CASE WHEN a.id IS NULL THEN {beyond} OR p.since IS NOT NULL ELSE {returned} END
    ), cleared AS (
        UPDATE alarm SET cleared_at = now() FROM judged j
        WHERE alarm.id = j.id AND alarm.cleared_at IS NULL RETURNING alarm.id
    ), begun AS (
        INSERT INTO alarm_pending (rule, kind, device)
        SELECT name, coalesce(kind, ''), coalesce(device, '') FROM judged
        WHERE id IS NULL AND is_beyond AND since IS NULL AND for_s > 0 ON CONFLICT DO NOTHING
    ), ended AS (
        DELETE FROM alarm_pending p USING judged j
        WHERE j.since IS NOT NULL AND (j.is_due OR NOT j.is_beyond)
            AND p.rule = j.name AND p.kind = coalesce(j.kind, '') AND p.device = coalesce(j.device, '')
    ), raised AS (
        INSERT INTO alarm (rule, measure, severity, kind, device, site, value, bound, unit, message)
        SELECT name, measure, severity, kind, device, site, value, raise_at, unit,
               concat_ws(': ', coalesce(nullif(concat_ws(' ', kind, device), ''), {_WITHOUT_DEVICE}),
                         format('%s %s %s, %s %s', title, {rounded}, unit, direction, raise_at)
                             || CASE WHEN for_s > 0 THEN format(' for %s s', for_s) ELSE '' END)
        FROM judged WHERE id IS NULL AND is_beyond AND is_due ON CONFLICT DO NOTHING RETURNING id
    ), event AS (
        SELECT id, 'cleared' AS event FROM cleared UNION ALL SELECT id, 'raised' FROM raised
    ), queued AS ({_QUEUE.format(events="event")})
    SELECT (SELECT count(*) FROM raised) AS raised, (SELECT count(*) FROM cleared) AS cleared
    """  # noqa: S608
