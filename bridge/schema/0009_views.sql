-- Views and functions for people who bring their own tools. They only read, with the rights of the caller.
--
-- The rules are those of api/energy: times are whole microseconds since 1970 UTC and energies whole units of 1e-12 kWh,
-- so an answer equals that of the API for the same period, digit by digit. An energy of a time needs the readings before
-- and after it, and a filter on the time of a result does not restrict the readings of a plain view over window
-- functions. So functions take the period as parameters, and the views call them for each UTC day: a condition on
-- the column `day` restricts what is read.

CREATE FUNCTION us_of(at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (extract(epoch FROM at) * 1000000)::bigint;
COMMENT ON FUNCTION us_of(at timestamptz) IS 'microseconds since 1970 UTC';

CREATE FUNCTION instant_of(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN timestamptz '1970-01-01 00:00:00+00' + us * interval '1 microsecond';
COMMENT ON FUNCTION instant_of(us bigint) IS 'the instant of us_of';

CREATE FUNCTION units_until(at bigint, start_us bigint, end_us bigint, units numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN at >= end_us THEN units WHEN at <= start_us THEN 0
    ELSE div(units * (at - start_us), end_us - start_us) END;
COMMENT ON FUNCTION units_until(at bigint, start_us bigint, end_us bigint, units numeric) IS
    'the part of a segment''s energy, in 1e-12 kWh, that flowed before an instant';

-- As api.energy.interval: times of a quarter hour are averaged, and the lower median is taken of the day that ends with
-- the last one.
CREATE FUNCTION observed_interval_us(times bigint[]) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
WITH own AS (
    SELECT at - at % 900000000 AS quarter, min(at) AS first, max(at) AS last, count(*) AS n FROM unnest(times) AS at
    GROUP BY 1
), gap AS (
    SELECT (last - first) / nullif(n - 1, 0) AS us, n - 1 AS n FROM own
    WHERE quarter >= (SELECT max(quarter) - 86400000000 FROM own)
    UNION ALL
    SELECT first - lag(last) OVER (ORDER BY quarter), 1 FROM own
    WHERE quarter >= (SELECT max(quarter) - 86400000000 FROM own)
), passed AS (
    SELECT us, sum(n) OVER (ORDER BY us) AS passed, sum(n) OVER () AS whole FROM gap WHERE us IS NOT NULL
)
SELECT min(us) FROM passed WHERE whole >= 3 AND 2 * passed >= whole
$$;
COMMENT ON FUNCTION observed_interval_us(times bigint[]) IS
    'The interval in microseconds at which a device reports, seen from the times of its readings; null when there are fewer than three gaps.';

-- The statement is composed for the kind and for the measures that the device has ever sent, with literal times: the
-- planner prunes partitions, and looks for no neighbour that does not exist.
CREATE FUNCTION energy_segments(
    kind text, device text, since timestamptz, until timestamptz, default_interval_s float8 DEFAULT 60
) RETURNS TABLE (
    direction int, start_us bigint, end_us bigint, units numeric, suspect numeric, is_reset boolean, is_covered boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    history   text := kind || '_telemetry_history';
    id_column text := kind || '_id';
    columns   text[] := CASE kind
        WHEN 'vehicle' THEN ARRAY['kwh_delivered_dc', 'kwh_charged_register', 'kwh_discharged_register']
        WHEN 'meter' THEN ARRAY['kwh_consumed_ac', 'kwh_import_register', 'kwh_export_register'] END;
    near      interval := interval '744 hours';
    asked     text;
    parts     text[];
    earlier   text;
    measure   text;
    sent      boolean[];
    declared  float8;
    rated_kw  float8;
BEGIN
    IF columns IS NULL THEN
        RAISE EXCEPTION 'no such kind of device: %', kind USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format(
        'SELECT ARRAY[l.%I IS NOT NULL, l.%I IS NOT NULL, l.%I IS NOT NULL], d.interval_s, coalesce(d.rated_kw, $3) '
        'FROM (SELECT) AS one LEFT JOIN %I l ON l.%I = $2 LEFT JOIN device d ON d.kind = $1 AND d.id = $2',
        columns[1], columns[2], columns[3], kind || '_live_status', id_column
    ) INTO sent, declared, rated_kw USING kind, device, CASE kind WHEN 'vehicle' THEN 500.0 ELSE 1000.0 END::float8;

    asked := format('SELECT ts, %I AS energy, %I AS register_in, %I AS register_out FROM %I WHERE %I = %L AND ',
                    columns[1], columns[2], columns[3], history, id_column, device);
    parts := ARRAY[asked || format('ts >= %L AND ts < %L', since, until)];
    FOR n IN 1 .. 3 LOOP
        CONTINUE WHEN NOT sent[n];
        parts := parts
            || format('(%s ts >= %L AND ts < %L AND %I IS NOT NULL ORDER BY %I DESC, ts DESC LIMIT 1)',
                      asked, since - near, since, columns[n], id_column)
            || format('(%s ts >= %L AND ts < %L AND %I IS NOT NULL ORDER BY %I, ts LIMIT 1)',
                      asked, until, until + near, columns[n], id_column);
    END LOOP;
    earlier := format('observed_interval_us(ARRAY(SELECT us_of(ts) FROM (%s ts >= %L AND ts < %L) AS e '
                      'WHERE num_nonnulls(energy, register_in, register_out) > 0))',
                      asked, since - interval '24 hours', until);
    IF until - since >= interval '6 hours' THEN
        earlier := format('coalesce(observed_interval_us(ARRAY(SELECT at FROM reading WHERE at >= %s AND at < $1)), %s)',
                          us_of(since), earlier);
    END IF;

    RETURN QUERY EXECUTE $sql$
WITH reading AS MATERIALIZED (
    SELECT DISTINCT us_of(ts) AS at, (energy * 1e12)::bigint::numeric AS energy,
           trunc(register_in::numeric * 1e12) AS register_in, trunc(register_out::numeric * 1e12) AS register_out
    FROM ($sql$ || array_to_string(parts, ' UNION ALL ') || $sql$) AS r
    WHERE num_nonnulls(energy, register_in, register_out) > 0
), judged AS MATERIALIZED (
    SELECT coalesce(($2 * 1e6)::bigint, $sql$ || earlier || $sql$, ($3 * 1e6)::bigint) AS interval_us
), span AS (
    SELECT at, energy, lag(at) OVER (ORDER BY at) AS before, interval_us FROM reading, judged
), register AS (
    SELECT direction, at, value, lag(at) OVER each AS before_at, lag(value) OVER each AS before
    FROM reading, LATERAL (VALUES (1, register_in), (-1, register_out)) AS own(direction, value)
    WHERE value IS NOT NULL
    WINDOW each AS (PARTITION BY direction ORDER BY at)
), era AS (
    SELECT *, coalesce(value * 10 < before * 9, false) AS is_reset,
           count(*) FILTER (WHERE value * 10 < before * 9) OVER (PARTITION BY direction ORDER BY at) AS era,
           trunc($4 * (at - before_at) / 3600 * 11 / 10 * 1000000)::numeric AS most
    FROM register
), mark AS (
    SELECT *, max(value) OVER (PARTITION BY direction, era ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        AS high
    FROM era
), step AS (
    SELECT *, NOT is_reset AND value - before > most AND value > high AS is_suspect FROM mark
), extent AS (
    SELECT direction, min(at) AS first, max(at) AS last FROM register GROUP BY direction
)
SELECT d.direction, CASE WHEN before >= at - interval_us * 3 / 2 THEN before ELSE at - interval_us END, at,
       greatest(d.direction * energy, 0), 0::numeric, false, true
FROM span, (VALUES (1), (-1)) AS d(direction) LEFT JOIN extent USING (direction)
WHERE energy IS NOT NULL AND (first IS NULL OR at < first OR at > last)
UNION ALL
SELECT direction, coalesce(before_at, at), at,
       CASE WHEN before_at IS NULL OR is_suspect THEN 0
            WHEN is_reset THEN CASE WHEN value <= most THEN value ELSE 0 END
            ELSE greatest(value - high, 0) END,
       CASE WHEN is_suspect THEN value - high ELSE 0 END, is_reset, before_at IS NOT NULL AND NOT is_suspect
FROM step
$sql$ USING us_of(until), declared, default_interval_s, rated_kw;
END $$;
COMMENT ON FUNCTION energy_segments(kind text, device text, since timestamptz, until timestamptz, default_interval_s float8) IS
    'Where the energy of a device (kind vehicle or meter) flowed around a period, by direction (1 in, -1 out): evenly from start_us to end_us (microseconds since 1970 UTC), units and withheld suspect in 1e-12 kWh. A segment is not cut to the period.';

CREATE FUNCTION energy_by_quarter(
    kind text, device text, since timestamptz, until timestamptz, default_interval_s float8 DEFAULT 60
) RETURNS TABLE (
    ts timestamptz, kwh float8, kwh_in float8, kwh_out float8, boundary_kwh float8, suspect_kwh float8, resets bigint,
    covered_s float8, readings bigint
) LANGUAGE sql STABLE AS $$
WITH asked AS (
    SELECT us_of(since) AS start, us_of(until) AS stop
), segment AS MATERIALIZED (
    SELECT s.* FROM energy_segments(kind, device, since, until, default_interval_s) s
), known AS (
    SELECT coalesce(range_agg(int8range(start_us, end_us)) FILTER (WHERE is_covered), '{}')
         - coalesce(range_agg(int8range(start_us, end_us)) FILTER (WHERE suspect > 0), '{}') AS covered
    FROM segment
), span AS (
    SELECT start_us, end_us, direction, units, suspect, 0 AS is_span FROM segment WHERE units > 0 OR suspect > 0
    UNION ALL
    SELECT lower(r), upper(r), 0, 0, 0, 1 FROM known, unnest(covered) AS r
), part AS (
    SELECT quarter, direction, units, suspect,
           start_us < edge.low OR end_us > edge.high AS is_cut,
           is_span * (least(end_us, edge.high) - greatest(start_us, edge.low)) AS covered,
           units_until(edge.high, start_us, end_us, units) - units_until(edge.low, start_us, end_us, units) AS own,
           units_until(edge.high, start_us, end_us, suspect) - units_until(edge.low, start_us, end_us, suspect) AS held
    FROM span CROSS JOIN asked
    CROSS JOIN LATERAL generate_series(greatest(start_us, start) / 900000000 * 900000000,
                                       least(end_us, stop) - 1, 900000000) AS quarter
    CROSS JOIN LATERAL (SELECT greatest(quarter, start) AS low, least(quarter + 900000000, stop) AS high) AS edge
    WHERE greatest(start_us, start) < least(end_us, stop)
), figure AS (
    SELECT quarter, sum(own) FILTER (WHERE direction = 1) AS inward, sum(own) FILTER (WHERE direction = -1) AS outward,
           sum(units) FILTER (WHERE is_cut) AS boundary, sum(held) AS held, 0::bigint AS resets,
           sum(covered) AS covered, 0::bigint AS readings
    FROM part GROUP BY quarter
    UNION ALL
    SELECT (end_us - 1) / 900000000 * 900000000, 0, 0, 0, 0, count(*), 0, 0
    FROM segment, asked WHERE is_reset AND end_us > start AND end_us <= stop GROUP BY 1
    UNION ALL
    SELECT end_us / 900000000 * 900000000, 0, 0, 0, 0, 0, 0, count(DISTINCT end_us)
    FROM segment, asked WHERE end_us >= start AND end_us < stop GROUP BY 1
), total AS (
    SELECT quarter, coalesce(sum(inward), 0) AS inward, coalesce(sum(outward), 0) AS outward,
           coalesce(sum(boundary), 0) AS boundary, coalesce(sum(held), 0) AS held, sum(resets)::bigint AS resets,
           coalesce(sum(covered), 0) AS covered, sum(readings)::bigint AS readings
    FROM figure GROUP BY quarter
)
SELECT instant_of(greatest(quarter, start)), ((inward - outward) / 1e12)::float8, (inward / 1e12)::float8,
       (outward / 1e12)::float8, (boundary / 1e12)::float8, (held / 1e12)::float8, resets,
       (covered / 1e6)::float8, readings
FROM total, asked ORDER BY quarter
$$;
COMMENT ON FUNCTION energy_by_quarter(kind text, device text, since timestamptz, until timestamptz, default_interval_s float8) IS
    'Energy of one device (kind vehicle or meter) in the quarter hours of a period [since, until); columns as in vehicle_energy_quarter. default_interval_s is the API''s FLEET_READING_INTERVAL_S.';

CREATE VIEW meter_assignment_interval AS
SELECT a.meter_id, a.vehicle_id, a.valid_from, following.valid_from AS valid_to, d.site
FROM meter_assignment a
LEFT JOIN LATERAL (
    SELECT n.valid_from FROM meter_assignment n WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from
    ORDER BY n.meter_id, n.valid_from LIMIT 1
) AS following ON true
LEFT JOIN device d ON d.kind = 'meter' AND d.id = a.meter_id
WHERE a.vehicle_id IS NOT NULL;
COMMENT ON VIEW meter_assignment_interval IS 'Which vehicle a meter feeds, and when. Times in which a meter feeds no vehicle have no row.';
COMMENT ON COLUMN meter_assignment_interval.meter_id IS 'the meter';
COMMENT ON COLUMN meter_assignment_interval.vehicle_id IS 'the vehicle that it feeds';
COMMENT ON COLUMN meter_assignment_interval.valid_from IS 'begin of the assignment';
COMMENT ON COLUMN meter_assignment_interval.valid_to IS 'end of the assignment, which is not part of it; null while it lasts';
COMMENT ON COLUMN meter_assignment_interval.site IS 'site of the meter in the device register; null if none is declared';

CREATE FUNCTION assigned_segments(
    meter text, since timestamptz, until timestamptz, default_interval_s float8 DEFAULT 60
) RETURNS TABLE (vehicle_id text, direction int, start_us bigint, end_us bigint, units numeric)
LANGUAGE sql STABLE AS $$
WITH segment AS MATERIALIZED (
    SELECT row_number() OVER () AS id, s.* FROM energy_segments('meter', meter, since, until, default_interval_s) s
    WHERE s.units > 0
), assigned AS (
    SELECT a.vehicle_id, us_of(a.valid_from) AS low, coalesce(us_of(a.valid_to), 9223372036854775807) AS high
    FROM meter_assignment_interval a WHERE a.meter_id = meter
), overlap AS (
    SELECT s.id, a.vehicle_id, s.direction, greatest(s.start_us, a.low) AS start_us, least(s.end_us, a.high) AS end_us, s.units
    FROM segment s JOIN assigned a ON a.low < s.end_us AND a.high > s.start_us
), passed AS (
    SELECT *, sum(end_us - start_us) OVER (PARTITION BY id) AS whole,
           sum(end_us - start_us) OVER (PARTITION BY id ORDER BY start_us) AS now
    FROM overlap
)
SELECT p.vehicle_id, p.direction, p.start_us, p.end_us,
       div(units * now, whole) - div(units * (now - (p.end_us - p.start_us)), whole)
FROM passed p
UNION ALL
SELECT NULL, s.direction, s.start_us, s.end_us, s.units
FROM segment s WHERE NOT EXISTS (SELECT FROM overlap o WHERE o.id = s.id)
$$;
COMMENT ON FUNCTION assigned_segments(meter text, since timestamptz, until timestamptz, default_interval_s float8) IS
    'The energy_segments of a meter divided among the vehicles that it feeds; vehicle_id is null for energy that no assignment overlaps.';

CREATE FUNCTION assigned_energy_by_quarter(
    meter text, since timestamptz, until timestamptz, default_interval_s float8 DEFAULT 60
) RETURNS TABLE (vehicle_id text, ts timestamptz, kwh float8, kwh_in float8, kwh_out float8) LANGUAGE sql STABLE AS $$
WITH asked AS (
    SELECT us_of(since) AS start, us_of(until) AS stop
), part AS (
    SELECT s.vehicle_id, s.direction, greatest(quarter, start) AS low,
           units_until(least(quarter + 900000000, stop), start_us, end_us, units)
           - units_until(greatest(quarter, start), start_us, end_us, units) AS own
    FROM assigned_segments(meter, since, until, default_interval_s) s CROSS JOIN asked
    CROSS JOIN LATERAL generate_series(greatest(start_us, start) / 900000000 * 900000000,
                                       least(end_us, stop) - 1, 900000000) AS quarter
    WHERE greatest(start_us, start) < least(end_us, stop)
)
SELECT p.vehicle_id, instant_of(low), (sum(direction * own) / 1e12)::float8,
       (coalesce(sum(own) FILTER (WHERE direction = 1), 0) / 1e12)::float8,
       (coalesce(sum(own) FILTER (WHERE direction = -1), 0) / 1e12)::float8
FROM part p GROUP BY p.vehicle_id, low ORDER BY low, p.vehicle_id
$$;
COMMENT ON FUNCTION assigned_energy_by_quarter(meter text, since timestamptz, until timestamptz, default_interval_s float8) IS
    'Energy of one meter in the quarter hours of a period [since, until), by the vehicle that it feeds; columns as in assigned_energy_quarter.';

-- A segment lies before its reading, so the day before the first partition may have energy too.
CREATE VIEW history_day AS
SELECT first + n AS day FROM (
    SELECT min(to_date(right(c.relname, 8), 'YYYYMMDD')) - 1 AS first, max(to_date(right(c.relname, 8), 'YYYYMMDD')) AS last
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('vehicle_telemetry_history'::regclass, 'meter_telemetry_history'::regclass)
) AS extent CROSS JOIN LATERAL generate_series(0, last - first) AS n;
COMMENT ON VIEW history_day IS 'The UTC days of the history, without holes; readings of detached partitions are not in it.';
COMMENT ON COLUMN history_day.day IS 'UTC day';

CREATE VIEW vehicle_energy_quarter AS
SELECT v.vehicle_id, d.day, q.ts, q.kwh, q.kwh_in, q.kwh_out, q.boundary_kwh, q.suspect_kwh, q.resets, q.covered_s, q.readings
FROM vehicle_live_status v CROSS JOIN history_day d CROSS JOIN LATERAL energy_by_quarter(
    'vehicle', v.vehicle_id, d.day::timestamp AT TIME ZONE 'UTC', (d.day + 1)::timestamp AT TIME ZONE 'UTC') AS q;
COMMENT ON VIEW vehicle_energy_quarter IS 'DC energy of vehicles by quarter hour. Each UTC day equals the answer of GET /v1/analytics/energy for that day. Quarter hours of which nothing is known have no row.';
COMMENT ON COLUMN vehicle_energy_quarter.vehicle_id IS 'the vehicle; a condition on it restricts what is read';
COMMENT ON COLUMN vehicle_energy_quarter.day IS 'UTC day of the quarter hour; a condition on it restricts what is read, one on ts does not';
COMMENT ON COLUMN vehicle_energy_quarter.ts IS 'begin of the quarter hour';
COMMENT ON COLUMN vehicle_energy_quarter.kwh IS 'energy into the battery less energy out of it, kWh';
COMMENT ON COLUMN vehicle_energy_quarter.kwh_in IS 'energy into the battery, kWh';
COMMENT ON COLUMN vehicle_energy_quarter.kwh_out IS 'energy out of the battery, kWh, positive';
COMMENT ON COLUMN vehicle_energy_quarter.boundary_kwh IS 'whole energy of the intervals between readings that an edge of the quarter hour divides, kWh';
COMMENT ON COLUMN vehicle_energy_quarter.suspect_kwh IS 'energy that is withheld, because it is more than rated power allows, kWh';
COMMENT ON COLUMN vehicle_energy_quarter.resets IS 'number of resets of registers';
COMMENT ON COLUMN vehicle_energy_quarter.covered_s IS 'time of the quarter hour in which energy is known, s, at most 900';
COMMENT ON COLUMN vehicle_energy_quarter.readings IS 'number of readings in the quarter hour whose energy counts';

CREATE VIEW meter_energy_quarter AS
SELECT m.meter_id, d.day, q.ts, q.kwh, q.kwh_in, q.kwh_out, q.boundary_kwh, q.suspect_kwh, q.resets, q.covered_s, q.readings
FROM meter_live_status m CROSS JOIN history_day d CROSS JOIN LATERAL energy_by_quarter(
    'meter', m.meter_id, d.day::timestamp AT TIME ZONE 'UTC', (d.day + 1)::timestamp AT TIME ZONE 'UTC') AS q;
COMMENT ON VIEW meter_energy_quarter IS 'AC energy of meters by quarter hour, whichever vehicle they feed; otherwise as vehicle_energy_quarter.';
COMMENT ON COLUMN meter_energy_quarter.meter_id IS 'the meter; a condition on it restricts what is read';
COMMENT ON COLUMN meter_energy_quarter.day IS 'UTC day of the quarter hour; a condition on it restricts what is read, one on ts does not';
COMMENT ON COLUMN meter_energy_quarter.ts IS 'begin of the quarter hour';
COMMENT ON COLUMN meter_energy_quarter.kwh IS 'energy drawn from the grid less energy fed back, kWh';
COMMENT ON COLUMN meter_energy_quarter.kwh_in IS 'energy drawn from the grid, kWh';
COMMENT ON COLUMN meter_energy_quarter.kwh_out IS 'energy fed back, kWh, positive';
COMMENT ON COLUMN meter_energy_quarter.boundary_kwh IS 'whole energy of the intervals between readings that an edge of the quarter hour divides, kWh';
COMMENT ON COLUMN meter_energy_quarter.suspect_kwh IS 'energy that is withheld, because it is more than rated power allows, kWh';
COMMENT ON COLUMN meter_energy_quarter.resets IS 'number of resets of registers';
COMMENT ON COLUMN meter_energy_quarter.covered_s IS 'time of the quarter hour in which energy is known, s, at most 900';
COMMENT ON COLUMN meter_energy_quarter.readings IS 'number of readings in the quarter hour whose energy counts';

CREATE VIEW assigned_energy_quarter AS
SELECT p.vehicle_id, p.meter_id, d.day, q.ts, q.kwh, q.kwh_in, q.kwh_out
FROM (SELECT DISTINCT vehicle_id, meter_id FROM meter_assignment WHERE vehicle_id IS NOT NULL) AS p
CROSS JOIN history_day d CROSS JOIN LATERAL assigned_energy_by_quarter(
    p.meter_id, d.day::timestamp AT TIME ZONE 'UTC', (d.day + 1)::timestamp AT TIME ZONE 'UTC') AS q
WHERE q.vehicle_id = p.vehicle_id
UNION ALL
SELECT NULL, m.meter_id, d.day, q.ts, q.kwh, q.kwh_in, q.kwh_out
FROM meter_live_status m CROSS JOIN history_day d CROSS JOIN LATERAL assigned_energy_by_quarter(
    m.meter_id, d.day::timestamp AT TIME ZONE 'UTC', (d.day + 1)::timestamp AT TIME ZONE 'UTC') AS q
WHERE q.vehicle_id IS NULL;
COMMENT ON VIEW assigned_energy_quarter IS 'AC energy of meters by quarter hour and by the vehicle that they feed. Quarter hours without energy have no row.';
COMMENT ON COLUMN assigned_energy_quarter.vehicle_id IS 'the vehicle; null for energy that no assignment overlaps. A condition on it restricts what is read';
COMMENT ON COLUMN assigned_energy_quarter.meter_id IS 'the meter; a condition on it restricts what is read';
COMMENT ON COLUMN assigned_energy_quarter.day IS 'UTC day of the quarter hour; a condition on it restricts what is read, one on ts does not';
COMMENT ON COLUMN assigned_energy_quarter.ts IS 'begin of the quarter hour';
COMMENT ON COLUMN assigned_energy_quarter.kwh IS 'energy drawn from the grid less energy fed back, kWh';
COMMENT ON COLUMN assigned_energy_quarter.kwh_in IS 'energy drawn from the grid, kWh';
COMMENT ON COLUMN assigned_energy_quarter.kwh_out IS 'energy fed back, kWh, positive';

-- The rules of api/energy/stretches.py as sets of time: what flows at 0.1 kW or more, less driving and recuperation,
-- joined over pauses of 15 minutes and cut where the assigned meters change.
CREATE FUNCTION charging_sessions(
    vehicle text, since timestamptz, until timestamptz, default_interval_s float8 DEFAULT 60
) RETURNS TABLE (
    started_at timestamptz, ended_at timestamptz, meter_ids text[], kwh_ac float8, kwh_dc float8, mean_kw float8,
    open_start boolean, open_end boolean
) LANGUAGE sql STABLE AS $$
WITH asked AS (
    SELECT us_of(since) AS start, us_of(until) AS stop
), dc AS MATERIALIZED (
    SELECT s.*, s.units * 36 >= (s.end_us - s.start_us) * 1000::numeric AND s.units > 0 AS flows
    FROM energy_segments('vehicle', vehicle, since, until, default_interval_s) s
), assigned AS (
    SELECT a.meter_id, range_agg(int8range(us_of(a.valid_from), us_of(a.valid_to))) AS times
    FROM meter_assignment_interval a
    WHERE a.vehicle_id = vehicle AND a.valid_from < until AND (a.valid_to IS NULL OR a.valid_to > since)
    GROUP BY a.meter_id
), ac AS MATERIALIZED (
    SELECT a.meter_id, s.*, s.units * 36 >= (s.end_us - s.start_us) * 1000::numeric AND s.units > 0 AS flows
    FROM assigned a CROSS JOIN LATERAL assigned_segments(a.meter_id, since, until, default_interval_s) s
    WHERE s.vehicle_id = vehicle
), meter_flow AS (
    SELECT coalesce(range_agg(int8range(start_us, end_us)), '{}') AS at_meter,
           coalesce(range_agg(int8range(start_us, end_us)) FILTER (WHERE direction = -1), '{}') AS fed_back
    FROM ac WHERE flows
), own AS MATERIALIZED (
    SELECT int8range(start_us, end_us) AS span, direction = 1 AS is_inward,
           at_meter && int8range(start_us, end_us) AS is_at_meter,
           end_us - start_us <= 2 * (SELECT coalesce(sum(upper(back) - lower(back)), 0)
                                     FROM unnest(fed_back * int8multirange(int8range(start_us, end_us))) AS back) AS is_to_grid
    FROM dc, meter_flow WHERE flows
), side AS (
    SELECT coalesce(range_agg(span) FILTER (WHERE is_inward AND is_at_meter), '{}') AS known,
           coalesce(range_agg(span) FILTER (WHERE is_inward AND NOT is_at_meter), '{}') AS alone,
           coalesce(range_agg(span) FILTER (WHERE NOT is_inward AND is_to_grid), '{}') AS to_grid,
           coalesce(range_agg(span) FILTER (WHERE NOT is_inward AND NOT is_to_grid), '{}') AS outward
    FROM own
), state AS MATERIALIZED (
    SELECT *, outward - to_grid - at_meter AS driving FROM meter_flow, side
), lone AS (
    SELECT lower(span) AS low, upper(span) AS high, lag(upper(span)) OVER (ORDER BY span) AS before
    FROM state, unnest(alone) AS span
), lone_numbered AS (
    SELECT low, high, count(*) FILTER (
        WHERE before IS NULL OR low - before > 900000000 OR driving + at_meter && int8range(before, low)
    ) OVER (ORDER BY low) AS number
    FROM lone, state
), run AS (
    SELECT min(low) AS low, max(high) AS high, sum(high - low) AS flowing, range_agg(int8range(low, high)) AS inflow
    FROM lone_numbered GROUP BY number
), elsewhere AS (
    SELECT coalesce(range_agg(span), '{}') AS kept FROM run, state, unnest(inflow) AS span
    WHERE at_meter && int8range(low - 1, high + 1) OR NOT (
        flowing <= 300000000 AND driving && int8range(low - 900000000, high + 900000000)
        OR coalesce((SELECT max(h.odometer_km) - min(h.odometer_km) FROM vehicle_telemetry_history h
                     WHERE h.vehicle_id = vehicle AND h.ts BETWEEN instant_of(low) AND instant_of(high)), 0) >= 1)
), active AS (
    SELECT (at_meter + to_grid + known + kept - driving) * int8multirange(int8range(start, stop)) AS times
    FROM state, elsewhere, asked
), change AS MATERIALIZED (
    SELECT DISTINCT at FROM assigned, unnest(times) AS t, LATERAL (VALUES (lower(t)), (upper(t))) AS edge(at)
    WHERE at IS NOT NULL
), cut AS (
    SELECT at AS low, lead(at) OVER (PARTITION BY piece ORDER BY at) AS high
    FROM active, unnest(active.times) AS piece, LATERAL (
        SELECT lower(piece) UNION SELECT upper(piece)
        UNION SELECT c.at FROM change c WHERE c.at > lower(piece) AND c.at < upper(piece)
    ) AS edge(at)
), ordered AS (
    SELECT low, high, lag(high) OVER (ORDER BY low) AS before FROM cut WHERE high IS NOT NULL
), numbered AS (
    SELECT low, high, count(*) FILTER (
        WHERE before IS NULL OR low - before > 900000000 OR driving && int8range(before, low)
        OR EXISTS (SELECT FROM change c WHERE c.at BETWEEN before AND low)
    ) OVER (ORDER BY low) AS number
    FROM ordered, state
), charge AS (
    SELECT min(low) AS low, max(high) AS high FROM numbered GROUP BY number
), figure AS (
    SELECT c.low, c.high, a.meter_ids, a.net AS ac, d.net AS dc,
           CASE WHEN a.meter_ids = '{}' THEN d.gross ELSE a.gross END AS gross
    FROM charge c
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(meter_id ORDER BY meter_id), '{}') AS meter_ids, sum(net) AS net, sum(gross) AS gross FROM (
            SELECT meter_id, sum(direction * own) AS net, sum(own) AS gross
            FROM ac CROSS JOIN LATERAL (SELECT units_until(c.high, start_us, end_us, units)
                                             - units_until(c.low, start_us, end_us, units) AS own) AS part
            WHERE start_us < c.high AND end_us > c.low GROUP BY meter_id HAVING bool_or(flows)
        ) AS each
    ) AS a
    CROSS JOIN LATERAL (
        SELECT sum(direction * own) AS net, sum(own) AS gross
        FROM dc CROSS JOIN LATERAL (SELECT units_until(c.high, start_us, end_us, units)
                                         - units_until(c.low, start_us, end_us, units) AS own) AS part
        WHERE start_us < c.high AND end_us > c.low
    ) AS d
)
SELECT instant_of(low), instant_of(high), f.meter_ids, (ac / 1e12)::float8, (dc / 1e12)::float8,
       (coalesce(ac, dc) / 1e12 * 3600000000 / (high - low))::float8, low <= start, high >= stop
FROM figure f, asked WHERE gross > 100000000000 OR low <= start OR high >= stop ORDER BY low
$$;
COMMENT ON FUNCTION charging_sessions(vehicle text, since timestamptz, until timestamptz, default_interval_s float8) IS
    'The charging sessions of one vehicle in a period [since, until); columns as in charging_session.';

CREATE VIEW charging_session AS
SELECT v.vehicle_id, d.day, s.started_at, s.ended_at, s.meter_ids, s.kwh_ac, s.kwh_dc, s.mean_kw, s.open_end
FROM (SELECT vehicle_id FROM vehicle_live_status UNION SELECT vehicle_id FROM meter_assignment WHERE vehicle_id IS NOT NULL) AS v
CROSS JOIN history_day d CROSS JOIN LATERAL charging_sessions(
    v.vehicle_id, d.day::timestamp AT TIME ZONE 'UTC' - interval '1 hour', (d.day + 2)::timestamp AT TIME ZONE 'UTC') AS s
WHERE s.started_at >= d.day::timestamp AT TIME ZONE 'UTC' AND s.started_at < (d.day + 1)::timestamp AT TIME ZONE 'UTC';
COMMENT ON VIEW charging_session IS 'Charging sessions of vehicles, by the rules of GET /v1/sessions; docs/views.md names the exceptions. A session that lasts beyond the UTC day after the one in which it began is cut there.';
COMMENT ON COLUMN charging_session.vehicle_id IS 'the vehicle; a condition on it restricts what is read';
COMMENT ON COLUMN charging_session.day IS 'UTC day of the begin; a condition on it restricts what is read, one on started_at does not';
COMMENT ON COLUMN charging_session.started_at IS 'begin of the session';
COMMENT ON COLUMN charging_session.ended_at IS 'end of the session';
COMMENT ON COLUMN charging_session.meter_ids IS 'the assigned meters that took part; empty for a charge at no meter of ours';
COMMENT ON COLUMN charging_session.kwh_ac IS 'energy drawn by these meters less energy fed back, kWh; null without a meter';
COMMENT ON COLUMN charging_session.kwh_dc IS 'energy into the battery less energy out of it, kWh; null if the vehicle reported none';
COMMENT ON COLUMN charging_session.mean_kw IS 'mean power, kW, of the AC side if a meter took part, else of the DC side';
COMMENT ON COLUMN charging_session.open_end IS 'whether the session is cut at the end of the following UTC day';

CREATE VIEW vehicle_live AS
SELECT l.vehicle_id, l.ts, l.received_at, extract(epoch FROM now() - l.ts)::float8 AS age_s,
       extract(epoch FROM now() - l.ts)::float8 > 1.5 * d.interval_s AS silent, d.site, l.soc, l.kwh_delivered_dc,
       l.battery_temp, l.kwh_charged_register, l.kwh_discharged_register, l.power_kw, l.odometer_km
FROM vehicle_live_status l LEFT JOIN device d ON d.kind = 'vehicle' AND d.id = l.vehicle_id;
COMMENT ON VIEW vehicle_live IS 'The latest state of each vehicle, with its age.';
COMMENT ON COLUMN vehicle_live.vehicle_id IS 'the vehicle';
COMMENT ON COLUMN vehicle_live.ts IS 'device time of the latest reading';
COMMENT ON COLUMN vehicle_live.received_at IS 'when the latest reading was received';
COMMENT ON COLUMN vehicle_live.age_s IS 'time since ts, s; negative if the device''s clock is fast';
COMMENT ON COLUMN vehicle_live.silent IS 'whether the age is more than 1.5 device intervals; null if the register declares no interval';
COMMENT ON COLUMN vehicle_live.site IS 'site in the device register; null if none is declared';
COMMENT ON COLUMN vehicle_live.soc IS 'state of charge, %';
COMMENT ON COLUMN vehicle_live.kwh_delivered_dc IS 'DC energy since the previous reading, kWh, signed: + into the battery';
COMMENT ON COLUMN vehicle_live.battery_temp IS 'battery temperature, degC';
COMMENT ON COLUMN vehicle_live.kwh_charged_register IS 'counter of the energy charged, kWh';
COMMENT ON COLUMN vehicle_live.kwh_discharged_register IS 'counter of the energy discharged, kWh';
COMMENT ON COLUMN vehicle_live.power_kw IS 'power at the instant, kW, signed: + into the battery';
COMMENT ON COLUMN vehicle_live.odometer_km IS 'distance driven since the vehicle was made, km';

CREATE VIEW meter_live AS
SELECT l.meter_id, l.ts, l.received_at, extract(epoch FROM now() - l.ts)::float8 AS age_s,
       extract(epoch FROM now() - l.ts)::float8 > 1.5 * d.interval_s AS silent, d.site, l.kwh_consumed_ac, l.voltage,
       l.kwh_import_register, l.kwh_export_register, l.power_kw
FROM meter_live_status l LEFT JOIN device d ON d.kind = 'meter' AND d.id = l.meter_id;
COMMENT ON VIEW meter_live IS 'The latest state of each meter, with its age.';
COMMENT ON COLUMN meter_live.meter_id IS 'the meter';
COMMENT ON COLUMN meter_live.ts IS 'device time of the latest reading';
COMMENT ON COLUMN meter_live.received_at IS 'when the latest reading was received';
COMMENT ON COLUMN meter_live.age_s IS 'time since ts, s; negative if the device''s clock is fast';
COMMENT ON COLUMN meter_live.silent IS 'whether the age is more than 1.5 device intervals; null if the register declares no interval';
COMMENT ON COLUMN meter_live.site IS 'site in the device register; null if none is declared';
COMMENT ON COLUMN meter_live.kwh_consumed_ac IS 'AC energy since the previous reading, kWh, signed: + drawn from the grid';
COMMENT ON COLUMN meter_live.voltage IS 'voltage, V';
COMMENT ON COLUMN meter_live.kwh_import_register IS 'counter of the energy drawn from the grid, kWh';
COMMENT ON COLUMN meter_live.kwh_export_register IS 'counter of the energy fed back, kWh';
COMMENT ON COLUMN meter_live.power_kw IS 'power at the instant, kW, signed: + drawn from the grid';

-- Readings that were rejected because the history has another one of the device with the same timestamp: what is
-- counted of them, without the payloads, which `fleet_reader` may not read. Such a payload begins with the device id, as in
-- {"vehicleId":"EV_1". A regular expression takes four times as long as these functions.

CREATE VIEW reading_conflict AS
SELECT encode(substring(payload from 3 for greatest(0, position('Id"'::bytea in payload) - 3)), 'escape') AS kind, device,
       received_at
FROM rejected_message WHERE reason = 'conflict';

COMMENT ON VIEW reading_conflict IS 'rejected readings whose timestamp is that of another reading of the device';
COMMENT ON COLUMN reading_conflict.kind IS 'kind of the device: vehicle, meter';
COMMENT ON COLUMN reading_conflict.device IS 'device id';
COMMENT ON COLUMN reading_conflict.received_at IS 'time of the rejection';
