-- Summaries of the history by device and UTC quarter hour; the buckets of every time zone are made of quarter hours. The
-- keeper makes them from the rows of the history, and nothing else. A figure may be made from the summary of a quarter
-- hour or from its rows, with the same result (docs/decisions/0026).
--
-- In a quarter hour a measure is even when every row has it or none has. Otherwise its columns are null, and the rows
-- must be read.

CREATE FUNCTION create_quarters(kind text, gauges text[], averaged text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    device  text := kind || '_id';
    quarter text := kind || '_quarter';
    gauge   text;
BEGIN
    -- The order of the columns saves padding: those of eight bytes come first.
    EXECUTE format('CREATE TABLE %I (
        bucket             timestamptz NOT NULL,
        interval_first     int8,
        interval_in        int8,
        interval_out       int8,
        register_in_first  float8,
        register_in_last   float8,
        register_out_first float8,
        register_out_last  float8,
        steepest_kw        float8,
        readings           int4 NOT NULL,
        first_us           int4 NOT NULL,
        last_us            int4 NOT NULL,
        widest_us          int4,
        steps_in           int4,
        steps_out          int4,
        rises_in           int4,
        rises_out          int4,
        is_even            boolean NOT NULL,
        %I                 text NOT NULL COLLATE "C",
        PRIMARY KEY (%I, bucket)
    ) PARTITION BY RANGE (bucket)', quarter, device, device);
    EXECUTE format('COMMENT ON TABLE %I IS ''the readings of a quarter hour (UTC) by device, made by the keeper''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.bucket IS ''begin of the quarter hour''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.first_us IS ''first reading, microseconds since the begin''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.last_us IS ''last reading, microseconds since the begin''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.widest_us IS ''longest time between two readings; null for one reading''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.is_even IS ''false: energy must be read from the history''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.interval_first IS ''interval energy of the first reading, 1e-12 kWh, signed''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.interval_in IS ''sum of the positive ones of the others, 1e-12 kWh''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.interval_out IS ''sum of the negative ones of the others, 1e-12 kWh, as a positive number''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.steps_in IS ''how many of the others are positive''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.steps_out IS ''how many of the others are negative''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.register_in_first IS ''register of energy in, first value, kWh''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.rises_in IS ''how many times it rises from one reading to the next''', quarter);
    EXECUTE format('COMMENT ON COLUMN %I.steepest_kw IS ''steepest rise of a register, kW''', quarter);
    FOREACH gauge IN ARRAY gauges LOOP
        PERFORM add_gauge_to_quarters(kind, gauge, gauge = ANY (averaged));
    END LOOP;

    -- Rows that were stored in a quarter hour after its summary was begun: one row for each batch, device and quarter
    -- hour, in the transaction of the readings. Rows are only added and deleted, so that no writer waits for the keeper.
    EXECUTE format('CREATE TABLE %I (%I text NOT NULL COLLATE "C", bucket timestamptz NOT NULL)', quarter || '_dirty', device);
    EXECUTE format('CREATE INDEX %I ON %I (%I, bucket)', quarter || '_dirty_key', quarter || '_dirty', device);
    EXECUTE format('COMMENT ON TABLE %I IS ''quarter hours whose summary lacks a reading''', quarter || '_dirty');

    INSERT INTO quarter_mark (kind) VALUES (kind);
END $$;

CREATE FUNCTION add_gauge_to_quarters(kind text, gauge text, is_averaged boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    quarter text := kind || '_quarter';
BEGIN
    EXECUTE format('ALTER TABLE %I ADD %I int4, ADD %I float8, ADD %I float8, ADD %I float8, ADD %I float8', quarter,
                   gauge || '_readings', gauge || '_first', gauge || '_last', gauge || '_least', gauge || '_most');
    EXECUTE format('COMMENT ON COLUMN %I.%I IS ''readings that have it; null for none''', quarter, gauge || '_readings');
    IF is_averaged THEN
        EXECUTE format('ALTER TABLE %I ADD %I float8', quarter, gauge || '_area');
        EXECUTE format('COMMENT ON COLUMN %I.%I IS ''twice the area under the lines between the readings, unit x microseconds; '
                       'null when two of them are more than 10 minutes apart''', quarter, gauge || '_area');
    END IF;
END $$;

-- Two instants of a kind, both the begin of a quarter hour. Readings before `marked_until` are marked as dirty by the
-- transaction that stores them; summaries before `closed_until` exist. The keeper moves the first one ahead, waits until
-- every transaction that has not seen it has ended, makes the summaries, and then moves the second one.
CREATE TABLE quarter_mark (
    kind         text        PRIMARY KEY,
    marked_until timestamptz NOT NULL DEFAULT '-infinity',
    closed_until timestamptz NOT NULL DEFAULT '-infinity' CHECK (closed_until <= marked_until)
);

-- Makes the partition of one UTC month unless it is there, as `ensure_partition` does for a day of the history.
CREATE FUNCTION ensure_quarter_partition(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
    first     timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
    beyond    timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = parent AND relkind = 'p' AND relowner = current_user::regrole
                   AND relname LIKE '%\_quarter') THEN
        RAISE EXCEPTION '% is no table of quarter hours', parent USING ERRCODE = 'insufficient_privilege';
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
REVOKE EXECUTE ON FUNCTION ensure_quarter_partition(regclass, date), create_quarters(text, text[], text[]),
    add_gauge_to_quarters(text, text, boolean) FROM PUBLIC;

SELECT create_quarters('vehicle', ARRAY['soc', 'battery_temp', 'power_kw', 'odometer_km'], ARRAY['battery_temp']);
SELECT create_quarters('meter', ARRAY['voltage', 'power_kw'], ARRAY[]::text[]);

-- As in 0006, with the tables of quarter hours, which the keeper writes with the writer's rights. From here on a view, and
-- a function that changes nothing (IMMUTABLE or STABLE), needs no change of this function: fleet_reader may use them all.
CREATE OR REPLACE FUNCTION grant_roles() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    role     text;
    relation regclass;
    routine  regprocedure;
    missing  text[] := '{}';
BEGIN
    FOREACH role IN ARRAY ARRAY['fleet_writer', 'fleet_reader', 'fleet_api'] LOOP
        IF to_regrole(role) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION
                WHEN insufficient_privilege THEN missing := missing || role;
                WHEN duplicate_object OR unique_violation THEN NULL;  -- created meanwhile by another database's migration
            END;
        END IF;
        IF to_regrole(role) IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON schema_migration TO %I', role);
        END IF;
    END LOOP;

    FOR relation IN
        SELECT oid::regclass FROM pg_class WHERE relnamespace = current_schema()::regnamespace
            AND (relkind = 'p' AND relname LIKE ANY ('{%\\_telemetry\\_history,%\\_quarter}')
                 OR relkind = 'r' AND relname LIKE ANY ('{%\\_live\\_status,%\\_quarter\\_dirty}'))
    LOOP
        IF to_regrole('fleet_writer') IS NOT NULL THEN
            EXECUTE format('GRANT SELECT, INSERT ON %s TO fleet_writer', relation);
            IF relation::text LIKE '%\_live\_status' OR relation::text LIKE '%\_quarter' THEN
                EXECUTE format('GRANT UPDATE ON %s TO fleet_writer', relation);
            END IF;
            IF relation::text LIKE '%\_quarter\_dirty' THEN
                EXECUTE format('GRANT DELETE ON %s TO fleet_writer', relation);
            END IF;
        END IF;
        IF to_regrole('fleet_reader') IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %s TO fleet_reader', relation);
        END IF;
    END LOOP;

    IF to_regrole('fleet_reader') IS NOT NULL THEN
        FOR relation IN
            SELECT oid::regclass FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
        LOOP
            EXECUTE format('GRANT SELECT ON %s TO fleet_reader', relation);
        END LOOP;
        FOR routine IN
            SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
                AND provolatile <> 'v' AND NOT prosecdef AND proowner = current_user::regrole
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO fleet_reader', routine);
        END LOOP;
    END IF;

    IF to_regrole('fleet_writer') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE (replayed_at) ON rejected_message TO fleet_writer;
        GRANT INSERT ON audit_log TO fleet_writer;  -- a replay of rejects is recorded
        GRANT EXECUTE ON FUNCTION ensure_partition(regclass, date), ensure_quarter_partition(regclass, date) TO fleet_writer;
        GRANT SELECT ON device TO fleet_writer;
        GRANT SELECT, UPDATE ON quarter_mark TO fleet_writer;
    END IF;
    IF to_regrole('fleet_reader') IS NOT NULL THEN
        GRANT SELECT ON meter_assignment, device, quarter_mark TO fleet_reader;
    END IF;
    IF to_regrole('fleet_api') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE ON api_key TO fleet_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON meter_assignment, device TO fleet_api;
        GRANT SELECT, INSERT ON audit_log TO fleet_api;
    END IF;
    RETURN missing;
END $$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION grant_roles() SET search_path = %I, pg_temp', current_schema());
END $$;
