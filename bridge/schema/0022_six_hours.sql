-- Summaries of six UTC hours, for the energy of a device over a year by day: each is composed by the keeper from the hours
-- of its device, as an hour is of its quarter hours (docs/decisions/0026). They begin at 00, 06, 12 and 18 o'clock.

CREATE FUNCTION create_six_hours(kind text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    hour      text := kind || '_hour';
    six_hours text := kind || '_six_hour';
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) PARTITION BY RANGE (bucket)', six_hours, hour);
    EXECUTE format('COMMENT ON TABLE %I IS ''the hours of six hours (UTC) by device as one, made by the keeper''', six_hours);
    EXECUTE format('COMMENT ON COLUMN %I.bucket IS ''begin of the six hours; the other columns are as in the hours''', six_hours);
    EXECUTE format('COMMENT ON COLUMN %I.least_us IS ''least of the times between hours and of those in the hours; '
                   'null for one reading''', six_hours);
    EXECUTE format('COMMENT ON COLUMN %I.is_even IS ''false: energy must be read from the hours''', six_hours);
END $$;
SELECT create_six_hours('vehicle'), create_six_hours('meter');
REVOKE EXECUTE ON FUNCTION create_six_hours(text) FROM PUBLIC;

-- All six hours up to here are composed of hours. A device without a row in some of them has no hour in them.
ALTER TABLE quarter_mark ADD six_hours_until timestamptz NOT NULL DEFAULT '-infinity';

-- As before, for six hours too.
CREATE OR REPLACE FUNCTION ensure_quarter_partition(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
    begins    date := date_trunc('month', month::timestamp);
    first     timestamptz := begins::timestamp AT TIME ZONE 'UTC';
    beyond    timestamptz := (begins::timestamp + interval '1 month') AT TIME ZONE 'UTC';
    history   text := regexp_replace(parent::text, '(quarter|hour|six_hour)$', 'telemetry_history_') || to_char(month, 'YYYYMM');
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = parent AND relkind = 'p' AND relowner = current_user::regrole
                   AND relname LIKE ANY ('{%\\_quarter,%\\_hour}')) THEN
        RAISE EXCEPTION '% is no table of summaries', parent USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class WHERE relispartition AND relowner = current_user::regrole AND left(relname, -2) = history) THEN
        PERFORM require_partition_window(begins, (begins + interval '1 month')::date);
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING ALL) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, '
                   'autovacuum_vacuum_insert_threshold = 20000)', partition, parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, partition, first, beyond);
    RETURN true;
END $$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION ensure_quarter_partition(regclass, date) SET search_path = %I, pg_temp', current_schema());
END $$;
