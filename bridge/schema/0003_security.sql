-- Whoever caches keys hears of every change that may take rights away, in the moment it commits.

CREATE FUNCTION announce_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_api_key', OLD.id);
    RETURN NULL;
END $$;

CREATE TRIGGER announce AFTER DELETE OR UPDATE OF hash, scopes, devices, expires_at, revoked_at ON api_key
    FOR EACH ROW EXECUTE FUNCTION announce_api_key();

-- Who changed what: keys, assignments, replays. Append-only like the history.

CREATE TABLE audit_log (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text        NOT NULL,
    action  text        NOT NULL,
    subject text        NOT NULL,
    detail  jsonb       NOT NULL
);
CREATE INDEX audit_log_by_time ON audit_log (at);

COMMENT ON COLUMN audit_log.actor IS 'key:ID over HTTP, cli:USER on the command line';
COMMENT ON COLUMN audit_log.subject IS 'what was acted on: key:ID, meter:ID, rejected:ID';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
