-- Who may do what in the database, so that a program that is taken over cannot do more than its job. Group roles
-- without login; the programs' own login roles are members of them:
--   fleet_writer  the bridge and HTTP ingest: add history, keep live rows and rejects
--   fleet_reader  analytics: read history, live rows and assignments
--   fleet_api     the API's own tables: keys, assignments, the audit log
-- The owner, who migrates, is none of them and is used for nothing else.

-- Roles belong to the cluster, not to the database, and not every owner may make them: those that are missing are
-- returned, and `python -m bridge migrate` says so. It calls this function every time, so that a role that was made
-- later has its rights after the next migrate.
CREATE FUNCTION grant_roles() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    role    text;
    missing text[] := '{}';
BEGIN
    FOREACH role IN ARRAY ARRAY['fleet_writer', 'fleet_reader', 'fleet_api'] LOOP
        IF to_regrole(role) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION
                WHEN insufficient_privilege THEN missing := missing || role;
                WHEN duplicate_object OR unique_violation THEN NULL;  -- made meanwhile, beside another database
            END;
        END IF;
    END LOOP;

    IF to_regrole('fleet_writer') IS NOT NULL THEN
        GRANT SELECT, INSERT ON vehicle_telemetry_history, meter_telemetry_history TO fleet_writer;
        GRANT SELECT, INSERT, UPDATE ON vehicle_live_status, meter_live_status TO fleet_writer;
        GRANT SELECT, INSERT, UPDATE (replayed_at) ON rejected_message TO fleet_writer;
        GRANT INSERT ON audit_log TO fleet_writer;  -- a replay of rejects is written down
        GRANT EXECUTE ON FUNCTION ensure_partition(regclass, date) TO fleet_writer;
    END IF;
    IF to_regrole('fleet_reader') IS NOT NULL THEN
        GRANT SELECT ON vehicle_telemetry_history, meter_telemetry_history, vehicle_live_status, meter_live_status,
            meter_assignment TO fleet_reader;
    END IF;
    IF to_regrole('fleet_api') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE ON api_key, meter_assignment TO fleet_api;
        GRANT SELECT, INSERT ON audit_log TO fleet_api;
    END IF;
    RETURN missing;
END $$;

-- A partition is made by whoever needs it first, with the owner's rights: the writer cannot create tables. The function
-- names what it may be used for (0002), and looks names up in our schema only.
ALTER FUNCTION ensure_partition(regclass, date) SECURITY DEFINER;

-- Temporary tables come first in every search path that does not put them last: without this a role could pass its
-- own `vehicle_telemetry_history` off as ours.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION ensure_partition(regclass, date) SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION grant_roles() SET search_path = %I, pg_temp', current_schema());
END $$;

REVOKE EXECUTE ON FUNCTION ensure_partition(regclass, date), grant_roles() FROM PUBLIC;
