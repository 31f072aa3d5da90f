-- An observed interval belongs to a UTC day, as in api.energy.interval, and not to the period that is asked for: so the
-- energies of adjacent periods add up. For the same reason a register's highest value at the begin of a period is that of
-- four hours before it, so that a value below it and the climb back are no energy wherever a period begins.

CREATE OR REPLACE FUNCTION observed_interval_us(times bigint[]) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
WITH own AS (
    SELECT at - at % 900000000 AS quarter, min(at) AS first, max(at) AS last, count(*) AS n FROM unnest(times) AS at
    GROUP BY 1
), gap AS (
    SELECT (last - first) / nullif(n - 1, 0) AS us, n - 1 AS n FROM own
    UNION ALL
    SELECT first - lag(last) OVER (ORDER BY quarter), 1 FROM own
), passed AS (
    SELECT us, sum(n) OVER (ORDER BY us) AS passed, sum(n) OVER () AS whole FROM gap WHERE us IS NOT NULL
)
SELECT min(us) FROM passed WHERE whole >= 3 AND 2 * passed >= whole
$$;
COMMENT ON FUNCTION observed_interval_us(times bigint[]) IS
    'The interval in microseconds at which a device reports, seen from the times of its readings of a UTC day, or where it has fewer than four of that day and the day before: the lower median of the times between them, those of a quarter hour averaged; null when there are fewer than three gaps.';

-- The statement is composed for the kind and for the measures that the device has ever sent, with literal times: the
-- planner prunes partitions, and looks for no neighbour that does not exist.
CREATE OR REPLACE FUNCTION energy_segments(
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
    look_back timestamptz := instant_of(us_of(since) / 900000000 * 900000000 - 14400000000);
    asked     text;
    parts     text[];
    first_day text;
    observed  text[];
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
    parts := ARRAY[asked || format('ts >= %L AND ts < %L', look_back, until)];
    FOR n IN 1 .. 3 LOOP
        CONTINUE WHEN NOT sent[n];
        parts := parts
            || format('(%s ts >= %L AND ts < %L AND %I IS NOT NULL ORDER BY %I DESC, ts DESC LIMIT 1)',
                      asked, since - near, since, columns[n], id_column)
            || format('(%s ts >= %L AND ts < %L AND %I IS NOT NULL ORDER BY %I, ts LIMIT 1)',
                      asked, until, until + near, columns[n], id_column);
    END LOOP;
    FOREACH first_day IN ARRAY ARRAY['n', 'n - 1'] LOOP
        observed := observed || format(
            'observed_interval_us(ARRAY(SELECT us_of(ts) FROM (%s ts >= instant_of((%s) * 86400000000)'
            ' AND ts < instant_of((n + 1) * 86400000000)) AS e WHERE num_nonnulls(energy, register_in, register_out) > 0))',
            asked, first_day);
    END LOOP;

    RETURN QUERY EXECUTE $sql$
WITH reading AS MATERIALIZED (
    SELECT DISTINCT us_of(ts) AS at, (energy * 1e12)::bigint::numeric AS energy,
           trunc(register_in::numeric * 1e12) AS register_in, trunc(register_out::numeric * 1e12) AS register_out
    FROM ($sql$ || array_to_string(parts, ' UNION ALL ') || $sql$) AS r
    WHERE num_nonnulls(energy, register_in, register_out) > 0
), observed AS MATERIALIZED (
    SELECT n, coalesce($sql$ || array_to_string(observed, ', ') || $sql$) AS us
    FROM (SELECT DISTINCT at / 86400000000 AS n FROM reading WHERE at >= us_of($5)) AS day WHERE $2 IS NULL
), span AS (
    SELECT at, energy, lag(at) OVER (ORDER BY at) AS before,
           coalesce(($2 * 1e6)::bigint, us, ($3 * 1e6)::bigint) AS interval_us
    FROM reading LEFT JOIN observed ON n = at / 86400000000
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
$sql$ USING us_of(until), declared, default_interval_s, rated_kw, since;
END $$;
COMMENT ON FUNCTION energy_segments(kind text, device text, since timestamptz, until timestamptz, default_interval_s float8) IS
    'Where the energy of a device (kind vehicle or meter) flowed around a period, by direction (1 in, -1 out): evenly from start_us to end_us (microseconds since 1970 UTC), units and withheld suspect in 1e-12 kWh. A segment is not cut to the period.';
