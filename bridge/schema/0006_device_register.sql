-- What an operator declares about a device. A row is optional: a device without one works everywhere.

CREATE TABLE device (
    kind       text        NOT NULL COLLATE "C" CHECK (kind ~ '^[a-z][a-z_]{0,31}$'),
    id         text        NOT NULL COLLATE "C" CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    name       text,
    site       text,
    interval_s float8      CHECK (interval_s > 0),
    rated_kw   float8      CHECK (rated_kw > 0),
    time_zone  text,
    tags       text[]      NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, id)
);
CREATE INDEX device_by_site ON device (kind, site, id);

COMMENT ON COLUMN device.interval_s IS 'time between two readings, s';
COMMENT ON COLUMN device.rated_kw IS 'rated power, kW';
COMMENT ON COLUMN device.time_zone IS 'IANA name, as in Europe/Berlin';

-- A process that caches declarations is notified of every change when it commits; the payload is the kind. PostgreSQL
-- delivers equal notifications of one transaction once, so an import sends one.

CREATE FUNCTION announce_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_notify('fleet_device', OLD.kind);
    ELSE
        PERFORM pg_notify('fleet_device', NEW.kind);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON device
    FOR EACH ROW EXECUTE FUNCTION announce_device();

COMMENT ON COLUMN audit_log.subject IS 'what was acted on: key:ID, meter:ID, vehicle:ID, rejected:ID; an import names the list: meters, assignments';

-- As in 0004, for the tables of every kind, with the register, and with DELETE on assignments. Each program compares
-- the applied migrations with its own when it starts.
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
        GRANT SELECT ON meter_assignment, device TO fleet_reader;
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
