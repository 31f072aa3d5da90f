-- Rules whose condition must last, and the time in which a bridge worked: without one every device would be called silent.

ALTER TABLE alarm_rule ADD COLUMN for_s int NOT NULL DEFAULT 0 CHECK (for_s >= 0);
COMMENT ON COLUMN alarm_rule.for_s IS 'for how long the condition must last before an alarm is raised';

-- Conditions that have to last; the keeper replaces them at each run.
CREATE TABLE alarm_pending (
    rule   text        NOT NULL COLLATE "C",
    kind   text        NOT NULL COLLATE "C",
    device text        NOT NULL COLLATE "C",
    since  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rule, kind, device)
);
COMMENT ON TABLE alarm_pending IS 'conditions of rules that hold, but not for long enough yet';
COMMENT ON COLUMN alarm_pending.kind IS 'empty, as the device, for a condition that concerns no device';

CREATE TABLE bridge_work (
    one           boolean     PRIMARY KEY DEFAULT true CHECK (one),
    working_since timestamptz NOT NULL,
    working_until timestamptz NOT NULL
);
COMMENT ON TABLE bridge_work IS 'one row: the last time in which some bridge was active and ready, as the keeper saw it';

INSERT INTO alarm_rule (name, measure, direction, raise_at, clear_at, severity) VALUES
    ('bridge-down', 'bridgeOutage', 'above', 60, 45, 'critical')
ON CONFLICT DO NOTHING;

INSERT INTO role_right (role, privileges, name) VALUES
    ('fleet_writer', 'SELECT, INSERT, DELETE', 'alarm_pending'),
    ('fleet_writer', 'SELECT, INSERT, UPDATE, DELETE', 'bridge_work'),
    ('fleet_reader', 'SELECT', 'alarm_pending');
