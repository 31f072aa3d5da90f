-- What a program that was taken over, or an analyst, could still do beyond its task (docs/decisions/0040).

-- An audit row has the time and the login that the database knows; a role may give neither, nor the number. The actor is
-- what the program names: a key that exists, or a user of the command line.

ALTER TABLE audit_log ADD login text;
COMMENT ON COLUMN audit_log.at IS 'when the row was written, by the database''s clock';
COMMENT ON COLUMN audit_log.login IS 'the login in the database of the program that wrote the row; null for rows of earlier versions';

CREATE FUNCTION stamp_audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NEW.actor LIKE 'key:%' THEN
        IF NOT EXISTS (SELECT FROM api_key WHERE id = substr(NEW.actor, 5)) THEN
            RAISE EXCEPTION 'audit log: there is no %', NEW.actor USING ERRCODE = 'insufficient_privilege';
        END IF;
    ELSIF NEW.actor NOT LIKE 'cli:_%' THEN
        RAISE EXCEPTION 'audit log: % is no actor', NEW.actor USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- The bridge acts on nothing but rejects.
    IF NEW.action <> 'rejected.replay' AND session_user <> current_user AND to_regrole('fleet_api') IS NOT NULL
        AND NOT pg_has_role(session_user, 'fleet_api', 'MEMBER') THEN
        RAISE EXCEPTION 'audit log: % does not belong to %', NEW.action, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    NEW.at := clock_timestamp();
    NEW.login := session_user;
    RETURN NEW;
END $$;

CREATE TRIGGER stamp BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION stamp_audit();

DO $$
BEGIN
    IF to_regrole('fleet_writer') IS NOT NULL THEN
        REVOKE INSERT ON audit_log FROM fleet_writer;
    END IF;
    IF to_regrole('fleet_api') IS NOT NULL THEN
        REVOKE INSERT ON audit_log FROM fleet_api;
    END IF;
END $$;
UPDATE role_right SET privileges = CASE role WHEN 'fleet_api' THEN 'SELECT, ' ELSE '' END || 'INSERT (actor, action, subject, detail)'
WHERE name = 'audit_log';

-- A program may have a partition created for the days that it accepts, not for any day. `python -m bridge migrate` widens
-- the window to the limits that it is given, and never narrows it. A day beyond it is an error of the value (class 22), so
-- the reading becomes a reject and delays no other.

CREATE TABLE partition_window (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    past_days  int     NOT NULL,
    ahead_days int     NOT NULL
);
COMMENT ON TABLE partition_window IS 'days before and after today of which programs may have a partition created';

INSERT INTO partition_window (past_days, ahead_days)
SELECT greatest(121, 31 + max(today - day)), greatest(10, max(day - today))
FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS t LEFT JOIN (
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relispartition AND c.relname ~ '_telemetry_history_\d{8}$'
) AS own ON true;

-- Whether the session may create a table for these days: any that owns our tables or the server, otherwise in the window.
CREATE FUNCTION require_partition_window(first date, last date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    w     partition_window;
BEGIN
    IF session_user = current_user OR (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
        RETURN;
    END IF;
    SELECT * INTO w FROM partition_window;
    IF last < today - w.past_days OR first > today + w.ahead_days THEN
        RAISE EXCEPTION 'no partition is created for %: it is not from % to %', first, today - w.past_days, today + w.ahead_days
            USING ERRCODE = 'datetime_field_overflow',
                  HINT = 'run `python -m bridge migrate` with the FLEET_PAST_LIMIT_DAYS of the programs';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION ensure_partition(parent regclass, day date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    midnight  timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = parent AND relkind = 'p' AND relowner = current_user::regrole
                   AND relname LIKE '%\_telemetry\_history') THEN
        RAISE EXCEPTION '% is no history', parent USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM require_partition_window(day, day);
    -- A lock on the table, not an advisory one: only the former makes this session see what another has just made.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING ALL) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, '
                   'autovacuum_vacuum_insert_threshold = 20000)', partition, parent);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT '
                   'EXECUTE FUNCTION refuse_change()', partition);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   parent, partition, midnight, midnight + interval '1 day');
    RETURN true;
END $$;

-- As before, in the window, or in a month of which the history has a day.
CREATE OR REPLACE FUNCTION ensure_quarter_partition(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
    begins    date := date_trunc('month', month::timestamp);
    first     timestamptz := begins::timestamp AT TIME ZONE 'UTC';
    beyond    timestamptz := (begins::timestamp + interval '1 month') AT TIME ZONE 'UTC';
    history   text := regexp_replace(parent::text, '(quarter|hour)$', 'telemetry_history_') || to_char(month, 'YYYYMM');
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = parent AND relkind = 'p' AND relowner = current_user::regrole
                   AND relname LIKE ANY ('{%\\_quarter,%\\_hour}')) THEN
        RAISE EXCEPTION '% is no table of quarter hours or hours', parent USING ERRCODE = 'insufficient_privilege';
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

-- An advisory lock can be taken by every login. So the lock of a bridge's name or of the keeper has a key that is a row: if
-- a session holds it that may not write, another key takes its place. Every attempt that may succeed locks the row.

CREATE TABLE leadership (
    space int  NOT NULL,
    name  text NOT NULL,
    key   int  NOT NULL,
    PRIMARY KEY (space, name)
);
COMMENT ON TABLE leadership IS 'keys of the advisory locks by which one bridge of a name, and one keeper, works';

CREATE FUNCTION is_led(of_space int, of_key int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
RETURN EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.classid = of_space::oid AND l.objid = of_key::oid AND l.objsubid = 2 AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (to_regrole('fleet_writer') IS NULL OR a.usesysid = current_user::regrole
             OR pg_has_role(a.usesysid, to_regrole('fleet_writer'), 'MEMBER'))
);

CREATE FUNCTION take_leadership(of_space int, of_name text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    own int;
BEGIN
    -- The first key is that of earlier versions, so that a bridge of this version stands by while one of those leads.
    SELECT key INTO own FROM leadership WHERE space = of_space AND name = of_name;
    IF is_led(of_space, coalesce(own, hashtext(of_name))) THEN
        RETURN false;
    END IF;
    INSERT INTO leadership (space, name, key) VALUES (of_space, of_name, hashtext(of_name)) ON CONFLICT DO NOTHING;
    SELECT key INTO own FROM leadership WHERE space = of_space AND name = of_name FOR UPDATE;
    IF pg_try_advisory_lock(of_space, own) THEN
        RETURN true;
    END IF;
    PERFORM pg_stat_clear_snapshot();  -- the sessions that this transaction has seen; another may have come meanwhile
    IF is_led(of_space, own) THEN
        RETURN false;
    END IF;
    own := (random() * 4294967295 - 2147483648)::bigint::int;
    UPDATE leadership SET key = own WHERE space = of_space AND name = of_name;
    RETURN pg_try_advisory_lock(of_space, own);
END $$;

INSERT INTO role_right (role, privileges, name) VALUES ('fleet_writer', 'EXECUTE', 'take_leadership');

-- Everybody who can connect is a member of PUBLIC, so PUBLIC gets nothing, and our roles what they need of the database.
-- Called by every migrate; returns what this owner may not take from PUBLIC.

CREATE FUNCTION revoke_public() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    statement text;
    refused   text[];
    routine   regprocedure;
BEGIN
    FOREACH statement IN ARRAY ARRAY(
        SELECT format(given, own) FROM unnest(ARRAY['fleet_writer', 'fleet_reader', 'fleet_api']) AS own,
            unnest(ARRAY[format('GRANT USAGE ON SCHEMA %I TO %%I', current_schema()),
                         format('GRANT CONNECT ON DATABASE %I TO %%I', current_database())]) AS given
        WHERE to_regrole(own) IS NOT NULL
        UNION ALL
        SELECT format('GRANT TEMPORARY ON DATABASE %I TO fleet_writer', current_database()) WHERE to_regrole('fleet_writer') IS NOT NULL
    ) || ARRAY[format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', current_schema()),
               format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()),
               'ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC'] LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;  -- as with one that only warns, what is left is found below
        END;
    END LOOP;
    refused := ARRAY(
        SELECT format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', nspname) FROM pg_namespace
        WHERE oid = current_schema()::regnamespace AND EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee = 0)
        UNION ALL
        SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', datname) FROM pg_database
        WHERE datname = current_database()
            AND EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)
    );
    FOR routine IN
        SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proowner = current_user::regrole
            AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
    END LOOP;
    RETURN refused;
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'stamp_audit()', 'require_partition_window(date, date)', 'ensure_partition(regclass, date)',
        'ensure_quarter_partition(regclass, date)', 'is_led(int, int)', 'take_leadership(int, text)', 'revoke_public()'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END $$;
