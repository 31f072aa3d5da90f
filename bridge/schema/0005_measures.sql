-- Every measure is optional, registers and power are new (bridge/contract.py). Only the catalogue changes: no row is
-- rewritten, and programs of the version before go on reading and writing meanwhile.

ALTER TABLE vehicle_telemetry_history
    ALTER soc DROP NOT NULL,
    ALTER kwh_delivered_dc DROP NOT NULL,
    ALTER battery_temp DROP NOT NULL,
    ADD kwh_charged_register float8,
    ADD kwh_discharged_register float8,
    ADD power_kw float8;
ALTER TABLE vehicle_live_status
    ALTER soc DROP NOT NULL,
    ALTER kwh_delivered_dc DROP NOT NULL,
    ALTER battery_temp DROP NOT NULL,
    ADD kwh_charged_register float8,
    ADD kwh_discharged_register float8,
    ADD power_kw float8;
ALTER TABLE meter_telemetry_history
    ALTER kwh_consumed_ac DROP NOT NULL,
    ALTER voltage DROP NOT NULL,
    ADD kwh_import_register float8,
    ADD kwh_export_register float8,
    ADD power_kw float8;
ALTER TABLE meter_live_status
    ALTER kwh_consumed_ac DROP NOT NULL,
    ALTER voltage DROP NOT NULL,
    ADD kwh_import_register float8,
    ADD kwh_export_register float8,
    ADD power_kw float8;

COMMENT ON COLUMN vehicle_telemetry_history.kwh_charged_register IS 'counter of the energy charged, kWh';
COMMENT ON COLUMN vehicle_telemetry_history.kwh_discharged_register IS 'counter of the energy discharged, kWh';
COMMENT ON COLUMN vehicle_telemetry_history.power_kw IS 'power at the instant, kW, signed: + into the battery';
COMMENT ON COLUMN meter_telemetry_history.kwh_import_register IS 'counter of the energy drawn from the grid, kWh';
COMMENT ON COLUMN meter_telemetry_history.kwh_export_register IS 'counter of the energy fed back, kWh';
COMMENT ON COLUMN meter_telemetry_history.power_kw IS 'power at the instant, kW, signed: + drawn from the grid';

-- The format that a rejected payload came in, so that a replay decodes it as it came.

ALTER TABLE rejected_message ADD format text NOT NULL DEFAULT 'json';
COMMENT ON COLUMN rejected_message.format IS 'json: one document; ndjson: an object a line';

-- Tables of a kind follow one naming scheme, so that a new kind needs its tables and these calls, no other change.

CREATE FUNCTION protect_history(history regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %s FOR EACH ROW '
                   'EXECUTE FUNCTION refuse_change()', history);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT '
                   'EXECUTE FUNCTION refuse_change()', history);
END $$;
COMMENT ON FUNCTION protect_history(regclass) IS 'makes a history table append-only';

-- As in 0002, for the history of any kind: a partitioned table of the owner's whose name says so.
CREATE OR REPLACE FUNCTION ensure_partition(parent regclass, day date) RETURNS boolean LANGUAGE plpgsql AS $$
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

-- Replacing a function forgets its settings: those of 0004 again.
ALTER FUNCTION ensure_partition(regclass, date) SECURITY DEFINER;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION ensure_partition(regclass, date) SET search_path = %I, pg_temp', current_schema());
END $$;
REVOKE EXECUTE ON FUNCTION protect_history(regclass) FROM PUBLIC;
