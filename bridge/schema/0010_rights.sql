-- The rights of each role are rows of a table: a migration that makes a table adds its rows, and `grant_roles()` stays as
-- it is.

CREATE TABLE role_right (
    role       text NOT NULL,
    privileges text NOT NULL,
    name       text NOT NULL,
    PRIMARY KEY (role, name, privileges)
);
COMMENT ON TABLE role_right IS 'what each role may do; only the owner changes it, by migrations';
COMMENT ON COLUMN role_right.privileges IS 'as GRANT has them; EXECUTE is for functions, all others are for tables';
COMMENT ON COLUMN role_right.name IS 'regular expression for the whole name of the tables or functions';

INSERT INTO role_right (role, privileges, name) VALUES
    ('fleet_writer', 'SELECT', 'schema_migration'),
    ('fleet_writer', 'SELECT, INSERT', '.+_telemetry_history'),
    ('fleet_writer', 'SELECT, INSERT, UPDATE', '.+_live_status'),
    ('fleet_writer', 'SELECT, INSERT, UPDATE', '.+_quarter'),
    ('fleet_writer', 'SELECT, INSERT, DELETE', '.+_quarter_dirty'),
    ('fleet_writer', 'SELECT, UPDATE', 'quarter_mark'),
    ('fleet_writer', 'SELECT', 'device'),
    ('fleet_writer', 'SELECT, INSERT, UPDATE (replayed_at)', 'rejected_message'),
    ('fleet_writer', 'INSERT', 'audit_log'),  -- a replay of rejects is recorded
    ('fleet_writer', 'EXECUTE', 'ensure_partition'),
    ('fleet_writer', 'EXECUTE', 'ensure_quarter_partition'),
    ('fleet_reader', 'SELECT', 'schema_migration'),
    ('fleet_reader', 'SELECT', '.+_telemetry_history'),
    ('fleet_reader', 'SELECT', '.+_live_status'),
    ('fleet_reader', 'SELECT', '.+_quarter'),
    ('fleet_reader', 'SELECT', '.+_quarter_dirty'),
    ('fleet_reader', 'SELECT', 'quarter_mark'),
    ('fleet_reader', 'SELECT', 'device'),
    ('fleet_reader', 'SELECT', 'meter_assignment'),
    ('fleet_api', 'SELECT', 'schema_migration'),
    ('fleet_api', 'SELECT, INSERT, UPDATE', 'api_key'),
    ('fleet_api', 'SELECT, INSERT, UPDATE, DELETE', 'meter_assignment'),
    ('fleet_api', 'SELECT, INSERT, UPDATE, DELETE', 'device'),
    ('fleet_api', 'SELECT, INSERT', 'audit_log');

-- Creates the roles and grants them their rights, and returns the roles that this owner may not create. A view, and a
-- function that changes nothing (IMMUTABLE or STABLE), needs no row: fleet_reader may use them all.
CREATE OR REPLACE FUNCTION grant_roles() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    missing text[] := '{}';
    name    text;
    given   record;
BEGIN
    FOREACH name IN ARRAY ARRAY['fleet_writer', 'fleet_reader', 'fleet_api'] LOOP
        IF to_regrole(name) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION
                WHEN insufficient_privilege THEN missing := missing || name;
                WHEN duplicate_object OR unique_violation THEN NULL;  -- created meanwhile by another database's migration
            END;
        END IF;
    END LOOP;

    FOR given IN
        SELECT r.role, r.privileges, 'TABLE ' || c.oid::regclass AS object
        FROM role_right r JOIN pg_class c ON c.relname ~ ('^(' || r.name || ')$')
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND r.privileges <> 'EXECUTE'
        UNION ALL
        SELECT r.role, r.privileges, 'FUNCTION ' || p.oid::regprocedure
        FROM role_right r JOIN pg_proc p ON p.proname ~ ('^(' || r.name || ')$')
        WHERE p.pronamespace = current_schema()::regnamespace AND r.privileges = 'EXECUTE'
        UNION ALL
        SELECT 'fleet_reader', 'SELECT', 'TABLE ' || oid::regclass
        FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
        UNION ALL
        SELECT 'fleet_reader', 'EXECUTE', 'FUNCTION ' || oid::regprocedure
        FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND provolatile <> 'v' AND NOT prosecdef
            AND proowner = current_user::regrole
    LOOP
        IF to_regrole(given.role) IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %s TO %I', given.privileges, given.object, given.role);
        END IF;
    END LOOP;
    RETURN missing;
END $$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION grant_roles() SET search_path = %I, pg_temp', current_schema());
END $$;
