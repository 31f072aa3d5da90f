-- Append-only is enforced here, not by convention: row triggers follow to every partition; TRUNCATE has only
-- statement triggers, which each partition is given when it is made.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON vehicle_telemetry_history
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON meter_telemetry_history
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON vehicle_telemetry_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON meter_telemetry_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the partition of one UTC day unless it is there; true when it made it. Two processes may call it at once.
-- The table is built aside and then attached: ATTACH lets readers and writers of the parent go on, which
-- CREATE TABLE ... PARTITION OF does not. Index-only scans need the visibility map soon after the inserts, hence
-- the vacuum settings.

CREATE FUNCTION ensure_partition(parent regclass, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    midnight  timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF parent NOT IN ('vehicle_telemetry_history'::regclass, 'meter_telemetry_history'::regclass) THEN
        RAISE EXCEPTION '% is no history', parent USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
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
