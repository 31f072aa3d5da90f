-- Readings that were rejected because the history has another one of the device with the same timestamp: what is
-- counted of them, without the payloads, which `fleet_reader` may not read. Such a payload begins with the device id, as in
-- {"vehicleId":"EV_1". A regular expression takes four times as long as these functions.

CREATE VIEW reading_conflict AS
SELECT encode(substring(payload from 3 for greatest(0, position('Id"'::bytea in payload) - 3)), 'escape') AS kind, device,
       received_at
FROM rejected_message WHERE reason = 'conflict';

COMMENT ON VIEW reading_conflict IS 'rejected readings whose timestamp is that of another reading of the device';
COMMENT ON COLUMN reading_conflict.kind IS 'kind of the device: vehicle, meter';
COMMENT ON COLUMN reading_conflict.received_at IS 'time of the rejection';

-- As in 0009, with the view.
CREATE OR REPLACE FUNCTION grant_roles() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    role     text;
    relation regclass;
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

    IF to_regrole('fleet_writer') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE (replayed_at) ON rejected_message TO fleet_writer;
        GRANT INSERT ON audit_log TO fleet_writer;  -- a replay of rejects is recorded
        GRANT EXECUTE ON FUNCTION ensure_partition(regclass, date), ensure_quarter_partition(regclass, date) TO fleet_writer;
        GRANT SELECT ON device TO fleet_writer;
        GRANT SELECT, UPDATE ON quarter_mark TO fleet_writer;
    END IF;
    IF to_regrole('fleet_reader') IS NOT NULL THEN
        GRANT SELECT ON meter_assignment, device, quarter_mark, meter_assignment_interval, history_day, vehicle_energy_quarter,
            meter_energy_quarter, assigned_energy_quarter, charging_session, vehicle_live, meter_live,
            reading_conflict TO fleet_reader;
        GRANT EXECUTE ON FUNCTION us_of(timestamptz), instant_of(bigint), units_until(bigint, bigint, bigint, numeric),
            energy_segments(text, text, timestamptz, timestamptz, float8),
            energy_by_quarter(text, text, timestamptz, timestamptz, float8),
            assigned_segments(text, timestamptz, timestamptz, float8),
            assigned_energy_by_quarter(text, timestamptz, timestamptz, float8),
            charging_sessions(text, timestamptz, timestamptz, float8) TO fleet_reader;
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
