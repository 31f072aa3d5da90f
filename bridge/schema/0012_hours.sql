-- Summaries of UTC hours, for the energy of many devices over a long time: each is composed by the keeper from the
-- quarter hours of its device, and may stand for them in a sum of energy (docs/decisions/0026). They have no gauges.

CREATE FUNCTION create_hours(kind text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    device text := kind || '_id';
    hour   text := kind || '_hour';
BEGIN
    -- The order of the columns saves padding: those of eight bytes come first.
    EXECUTE format('CREATE TABLE %I (
        bucket             timestamptz NOT NULL,
        first_us           int8 NOT NULL,
        last_us            int8 NOT NULL,
        widest_us          int8,
        least_us           int8,
        interval_first     int8,
        interval_in        int8,
        interval_out       int8,
        register_in_first  float8,
        register_in_last   float8,
        register_out_first float8,
        register_out_last  float8,
        steepest_kw        float8,
        readings           int4 NOT NULL,
        is_even            boolean NOT NULL,
        %I                 text NOT NULL COLLATE "C",
        PRIMARY KEY (%I, bucket)
    ) PARTITION BY RANGE (bucket)', hour, device, device);
    EXECUTE format('COMMENT ON TABLE %I IS ''the quarter hours of an hour (UTC) by device as one, made by the keeper''', hour);
    EXECUTE format('COMMENT ON COLUMN %I.bucket IS ''begin of the hour; the other columns are as in the quarter hours''', hour);
    EXECUTE format('COMMENT ON COLUMN %I.least_us IS ''least of the times between quarter hours and the mean times between '
                   'the readings in one; null for one reading''', hour);
    EXECUTE format('COMMENT ON COLUMN %I.is_even IS ''false: energy must be read from the quarter hours''', hour);
END $$;
SELECT create_hours('vehicle'), create_hours('meter');
REVOKE EXECUTE ON FUNCTION create_hours(text) FROM PUBLIC;

-- Every hour up to here is composed of the closed quarter hours of its devices, except for those with a mark. A device
-- without a row in such an hour has no quarter hour in it.
ALTER TABLE quarter_mark ADD composed_until timestamptz NOT NULL DEFAULT '-infinity';

-- As in 0008, for hours too.
CREATE OR REPLACE FUNCTION ensure_quarter_partition(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
    first     timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
    beyond    timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = parent AND relkind = 'p' AND relowner = current_user::regrole
                   AND relname LIKE ANY ('{%\\_quarter,%\\_hour}')) THEN
        RAISE EXCEPTION '% is no table of quarter hours or hours', parent USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
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
ALTER FUNCTION ensure_quarter_partition(regclass, date) SECURITY DEFINER;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION ensure_quarter_partition(regclass, date) SET search_path = %I, pg_temp', current_schema());
END $$;

INSERT INTO role_right (role, privileges, name) VALUES
    ('fleet_writer', 'SELECT, INSERT, UPDATE', '.+_hour'),
    ('fleet_reader', 'SELECT', '.+_hour');
