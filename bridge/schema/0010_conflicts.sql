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
            AND (relkind = 'p' AND relname LIKE '%\_telemetry\_history' OR relkind = 'r' AND relname LIKE '%\_live\_status')
    LOOP
        IF to_regrole('fleet_writer') IS NOT NULL THEN
            EXECUTE format('GRANT SELECT, INSERT ON %s TO fleet_writer', relation);
            IF relation::text LIKE '%\_live\_status' THEN
                EXECUTE format('GRANT UPDATE ON %s TO fleet_writer', relation);
            END IF;
        END IF;
        IF to_regrole('fleet_reader') IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %s TO fleet_reader', relation);
        END IF;
    END LOOP;

    IF to_regrole('fleet_writer') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE (replayed_at) ON rejected_message TO fleet_writer;
        GRANT INSERT ON audit_log TO fleet_writer;  -- a replay of rejects is recorded
        GRANT EXECUTE ON FUNCTION ensure_partition(regclass, date) TO fleet_writer;
        GRANT SELECT ON device TO fleet_writer;
    END IF;
    IF to_regrole('fleet_reader') IS NOT NULL THEN
        GRANT SELECT ON meter_assignment, device, reading_conflict TO fleet_reader;
    END IF;
    IF to_regrole('fleet_api') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE ON api_key TO fleet_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON meter_assignment, device TO fleet_api;
        GRANT SELECT, INSERT ON audit_log TO fleet_api;
    END IF;
    RETURN missing;
END $$;

-- CREATE OR REPLACE removed the setting of 0004 (the reason is there) and kept the rights.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION grant_roles() SET search_path = %I, pg_temp', current_schema());
END $$;
