-- Alarms: the rules that the keeper judges, the alarms that they raised, and the notifications that are still to be
-- delivered.

CREATE TABLE alarm_rule (
    name       text        PRIMARY KEY COLLATE "C" CHECK (name ~ '^[a-z][a-z0-9-]{0,63}$'),
    measure    text        NOT NULL,
    direction  text        NOT NULL CHECK (direction IN ('above', 'below')),
    raise_at   float8      NOT NULL,
    clear_at   float8      NOT NULL,
    severity   text        NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    enabled    boolean     NOT NULL DEFAULT true,
    kind       text        COLLATE "C",
    site       text,
    device     text        COLLATE "C",
    changed_at timestamptz NOT NULL DEFAULT now(),
    CHECK (CASE direction WHEN 'above' THEN clear_at <= raise_at ELSE clear_at >= raise_at END)
);
COMMENT ON TABLE alarm_rule IS 'what the keeper judges';
COMMENT ON COLUMN alarm_rule.measure IS 'what it looks at (bridge/alarms/measures.py)';
COMMENT ON COLUMN alarm_rule.raise_at IS 'raised when the value is beyond it, in the direction';
COMMENT ON COLUMN alarm_rule.clear_at IS 'cleared when the value has returned to it';
COMMENT ON COLUMN alarm_rule.site IS 'only devices that are declared at this site; null for all';

INSERT INTO alarm_rule (name, measure, direction, raise_at, clear_at, severity) VALUES
    ('silent', 'silence', 'above', 5, 1.5, 'warning'),
    ('battery-hot', 'batteryTemp', 'above', 55, 50, 'critical'),
    ('battery-cold', 'batteryTemp', 'below', -20, -15, 'info'),
    ('soc-low', 'soc', 'below', 5, 10, 'warning'),
    ('voltage-low', 'voltage', 'below', 207, 212, 'warning'),
    ('voltage-high', 'voltage', 'above', 253, 248, 'warning'),
    ('efficiency-low', 'efficiency', 'below', 0.7, 0.75, 'warning'),
    ('efficiency-high', 'efficiency', 'above', 1.1, 1.05, 'warning'),
    ('implausible-power', 'relativePower', 'above', 1.1, 1, 'warning'),
    ('clock-fast', 'clockDrift', 'above', 60, 30, 'warning'),
    ('clock-slow', 'clockDrift', 'below', -900, -300, 'warning'),
    ('many-rejects', 'rejects', 'above', 10, 0, 'warning'),
    ('certificate-expiry', 'certificateDays', 'below', 21, 30, 'critical'),
    ('disk-forecast', 'diskDays', 'below', 30, 45, 'critical');

CREATE TABLE alarm (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule            text        NOT NULL COLLATE "C",
    measure         text        NOT NULL,
    severity        text        NOT NULL,
    kind            text        COLLATE "C",
    device          text        COLLATE "C",
    site            text,
    raised_at       timestamptz NOT NULL DEFAULT now(),
    cleared_at      timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    note            text,
    value           float8      NOT NULL,
    bound           float8      NOT NULL,
    unit            text        NOT NULL,
    message         text        NOT NULL
);
-- One open alarm for each rule and device, even if two keepers judge at once.
CREATE UNIQUE INDEX alarm_open ON alarm (rule, coalesce(kind, ''), coalesce(device, '')) WHERE cleared_at IS NULL;
CREATE INDEX alarm_by_device ON alarm (device, id);
CREATE INDEX alarm_cleared ON alarm (cleared_at) WHERE cleared_at IS NOT NULL;
COMMENT ON TABLE alarm IS 'every alarm that was ever raised; it is open until it is cleared';
COMMENT ON COLUMN alarm.device IS 'null for an alarm that concerns no device';
COMMENT ON COLUMN alarm.value IS 'the value at which it was raised, in the unit';
COMMENT ON COLUMN alarm.acknowledged_by IS 'name of the API key';

CREATE TABLE alarm_webhook (
    id          text        PRIMARY KEY COLLATE "C",
    url         text        NOT NULL,
    secret      text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON COLUMN alarm_webhook.secret IS 'key of the signature; it must be readable, because it signs';
COMMENT ON COLUMN alarm_webhook.disabled_at IS 'the receiver answered 410 Gone';

-- One row for each alarm, event and target, made in the transaction that raises or clears the alarm.
CREATE TABLE alarm_delivery (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm_id     bigint      NOT NULL REFERENCES alarm,
    event        text        NOT NULL CHECK (event IN ('raised', 'cleared')),
    target       text        NOT NULL COLLATE "C",
    created_at   timestamptz NOT NULL DEFAULT now(),
    next_at      timestamptz NOT NULL DEFAULT now(),
    attempts     int         NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    failed_at    timestamptz,
    error        text,
    UNIQUE (alarm_id, target, event)
);
CREATE INDEX alarm_delivery_due ON alarm_delivery (target, id) WHERE delivered_at IS NULL AND failed_at IS NULL;
COMMENT ON COLUMN alarm_delivery.target IS 'mqtt, or the id of a webhook';
COMMENT ON COLUMN alarm_delivery.failed_at IS 'when it was given up';

-- The size of the database, hour by hour, of which its growth is computed.
CREATE TABLE database_size (
    at    timestamptz PRIMARY KEY DEFAULT now(),
    bytes bigint      NOT NULL
);

INSERT INTO role_right (role, privileges, name) VALUES
    ('fleet_writer', 'SELECT', 'alarm_rule'),
    ('fleet_writer', 'SELECT, INSERT, UPDATE (cleared_at)', 'alarm'),
    ('fleet_writer', 'SELECT, UPDATE (disabled_at)', 'alarm_webhook'),
    ('fleet_writer', 'SELECT, INSERT, UPDATE, DELETE', 'alarm_delivery'),
    ('fleet_writer', 'SELECT, INSERT, DELETE', 'database_size'),
    ('fleet_writer', 'SELECT', 'meter_assignment'),
    ('fleet_reader', 'SELECT', 'alarm'),
    ('fleet_reader', 'SELECT', 'alarm_rule'),
    ('fleet_api', 'SELECT, UPDATE (acknowledged_at, acknowledged_by, note)', 'alarm'),
    ('fleet_api', 'SELECT, INSERT, UPDATE, DELETE', 'alarm_rule'),
    ('fleet_api', 'SELECT, INSERT, DELETE', 'alarm_webhook'),
    ('fleet_api', 'SELECT, DELETE', 'alarm_delivery');
