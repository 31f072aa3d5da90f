-- Rejects are in a table for each UTC day of their arrival, which is dropped as a whole when it is old. The days inherit from
-- `rejected_message`: a declaratively partitioned table could not have the key that the id is, by which a reject is stored
-- once, and on which the statements of earlier versions rely (ON CONFLICT (id)). Rows of before stay where they are. A
-- migration that adds an index to `rejected_message` has to add it to the days too.

CREATE TABLE reject_id (id uuid PRIMARY KEY);
COMMENT ON TABLE reject_id IS 'the id of every reject that is kept, of all days: a redelivered message is stored once';

CREATE TABLE reject_excess (
    since    timestamptz NOT NULL,
    source   text        NOT NULL,
    sender   text        NOT NULL,
    device   text        NOT NULL,
    reason   text        NOT NULL,
    messages bigint      NOT NULL,
    bytes    bigint      NOT NULL,
    PRIMARY KEY (since, source, sender, device, reason)
);
COMMENT ON TABLE reject_excess IS 'rejects beyond the quotas, which are counted and not kept';
COMMENT ON COLUMN reject_excess.since IS 'begin of the hour';
COMMENT ON COLUMN reject_excess.sender IS 'id of the API key; empty for MQTT';
COMMENT ON COLUMN reject_excess.device IS 'empty for messages that are counted by their key, or that name no device';

-- Makes the table of one UTC day unless it is there; true when it made it. Two processes may call it at once.
CREATE FUNCTION ensure_reject_day(day date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    name     text := 'rejected_message_' || to_char(day, 'YYYYMMDD');
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    IF day NOT BETWEEN (now() AT TIME ZONE 'UTC')::date - 1 AND (now() AT TIME ZONE 'UTC')::date + 400 THEN
        RAISE EXCEPTION 'no rejects arrive on %', day USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- A lock on the table, not an advisory one: only the former makes this session see what another has just made.
    LOCK TABLE ONLY rejected_message IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE rejected_message INCLUDING ALL, CHECK (received_at >= %L AND received_at < %L))',
                   name, midnight, midnight + interval '1 day');
    EXECUTE format('ALTER TABLE %I INHERIT rejected_message', name);
    RETURN true;
END $$;

-- Stores rejects that arrive now, each once. Nested loops over a batch would take seconds, hence the setting.
CREATE FUNCTION store_rejects(id uuid[], source text[], topic text[], device text[], reason text[], detail text[],
                              payload bytea[], format text[], sender text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET enable_hashjoin = on AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM ensure_reject_day(today);
    EXECUTE format($sql$
        WITH given AS (
            SELECT DISTINCT ON (id) * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
                AS g(id, source, topic, device, reason, detail, payload, format, sender) ORDER BY id),
        fresh AS (INSERT INTO reject_id (id) SELECT id FROM given ON CONFLICT DO NOTHING RETURNING id)
        INSERT INTO %I (received_at, id, source, topic, device, reason, detail, payload, format, sender)
        SELECT now(), id, source, topic, device, reason, detail, payload, format, sender FROM given JOIN fresh USING (id)
        $sql$, 'rejected_message_' || to_char(today, 'YYYYMMDD'))
    USING id, source, topic, device, reason, detail, payload, format, sender;
END $$;

-- For the statements of earlier versions: stores a row in the table of its day, unless a reject with its id is kept. A row of
-- another day than these stays in `rejected_message` itself.
CREATE FUNCTION route_reject() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    day   date := (NEW.received_at AT TIME ZONE 'UTC')::date;
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    IF day BETWEEN today - 1 AND today + 1 THEN
        PERFORM ensure_reject_day(day);
    END IF;
    INSERT INTO reject_id (id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF day NOT BETWEEN today - 1 AND today + 1 THEN
        RETURN NEW;
    END IF;
    EXECUTE format('INSERT INTO %I SELECT ($1).*', 'rejected_message_' || to_char(day, 'YYYYMMDD')) USING NEW;
    RETURN NULL;
END $$;
CREATE TRIGGER route BEFORE INSERT ON rejected_message FOR EACH ROW EXECUTE FUNCTION route_reject();

-- Forgets a part of the rejects that arrived more than these days ago: whether there is more to do.
CREATE FUNCTION forget_rejects(kept_days integer) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    first_kept date := (now() AT TIME ZONE 'UTC')::date - kept_days;
    midnight   timestamptz := first_kept::timestamp AT TIME ZONE 'UTC';
    most       constant integer := 20000;
    oldest     text;
    gone       bigint;
BEGIN
    IF kept_days < 7 THEN
        RAISE EXCEPTION 'rejects are kept for 7 days at least' USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM reject_excess WHERE since < midnight;
    WITH old AS (SELECT id FROM ONLY rejected_message WHERE received_at < midnight LIMIT most),
         id AS (DELETE FROM reject_id WHERE id IN (SELECT id FROM old))
    DELETE FROM ONLY rejected_message WHERE id IN (SELECT id FROM old);
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF gone = most THEN
        RETURN true;
    END IF;
    SELECT c.relname INTO oldest FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'rejected_message'::regclass AND to_date(right(c.relname, 8), 'YYYYMMDD') < first_kept
    ORDER BY c.relname LIMIT 1;
    IF oldest IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DELETE FROM reject_id WHERE id IN (SELECT id FROM %I JOIN reject_id USING (id) LIMIT %s)', oldest, most);
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF gone < most THEN
        EXECUTE format('DROP TABLE %I', oldest);
    END IF;
    RETURN true;
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'ensure_reject_day(date)', 'route_reject()', 'forget_rejects(integer)',
        'store_rejects(uuid[], text[], text[], text[], text[], text[], bytea[], text[], text[])'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END $$;

INSERT INTO role_right (role, privileges, name) VALUES
    ('fleet_writer', 'SELECT, INSERT, UPDATE', 'reject_excess'),
    ('fleet_writer', 'EXECUTE', 'store_rejects'),
    ('fleet_writer', 'EXECUTE', 'ensure_reject_day'),
    ('fleet_writer', 'EXECUTE', 'forget_rejects'),
    ('fleet_reader', 'SELECT', 'reject_excess');

-- The trigger has locked the table against writers.
INSERT INTO reject_id SELECT id FROM rejected_message;
SELECT ensure_reject_day((now() AT TIME ZONE 'UTC')::date), ensure_reject_day((now() AT TIME ZONE 'UTC')::date + 1);
