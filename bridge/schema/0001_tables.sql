-- History: append-only, partitioned by UTC day. Every key begins with the device, so that the tables can be
-- distributed by device as they stand; it contains device time because a unique key of a partitioned table must.
-- The summed columns ride in the key: a vehicle's day is answered from the index alone.

CREATE TABLE vehicle_telemetry_history (
    ts               timestamptz NOT NULL,
    received_at      timestamptz NOT NULL DEFAULT now(),
    soc              float8      NOT NULL,
    kwh_delivered_dc float8      NOT NULL,
    battery_temp     float8      NOT NULL,
    vehicle_id       text        NOT NULL COLLATE "C",
    extra            jsonb,
    PRIMARY KEY (vehicle_id, ts) INCLUDE (kwh_delivered_dc, battery_temp)
) PARTITION BY RANGE (ts);

CREATE TABLE meter_telemetry_history (
    ts              timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now(),
    kwh_consumed_ac float8      NOT NULL,
    voltage         float8      NOT NULL,
    meter_id        text        NOT NULL COLLATE "C",
    extra           jsonb,
    PRIMARY KEY (meter_id, ts) INCLUDE (kwh_consumed_ac)
) PARTITION BY RANGE (ts);

COMMENT ON COLUMN vehicle_telemetry_history.ts IS 'device time';
COMMENT ON COLUMN vehicle_telemetry_history.soc IS 'state of charge, %';
COMMENT ON COLUMN vehicle_telemetry_history.kwh_delivered_dc IS 'DC energy into the battery since the last reading, kWh, signed';
COMMENT ON COLUMN vehicle_telemetry_history.battery_temp IS 'degC';
COMMENT ON COLUMN vehicle_telemetry_history.extra IS 'fields the contract does not name; null when there are none';
COMMENT ON COLUMN meter_telemetry_history.ts IS 'device time';
COMMENT ON COLUMN meter_telemetry_history.kwh_consumed_ac IS 'AC energy from the grid since the last reading, kWh, signed';
COMMENT ON COLUMN meter_telemetry_history.voltage IS 'V';
COMMENT ON COLUMN meter_telemetry_history.extra IS 'fields the contract does not name; null when there are none';

-- Live: one row a device, newest by device time. Room in each page and no second index keep updates HOT.

CREATE TABLE vehicle_live_status (
    vehicle_id       text        PRIMARY KEY COLLATE "C",
    ts               timestamptz NOT NULL,
    received_at      timestamptz NOT NULL,
    soc              float8      NOT NULL,
    kwh_delivered_dc float8      NOT NULL,
    battery_temp     float8      NOT NULL,
    extra            jsonb
) WITH (fillfactor = 50);

CREATE TABLE meter_live_status (
    meter_id        text        PRIMARY KEY COLLATE "C",
    ts              timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    kwh_consumed_ac float8      NOT NULL,
    voltage         float8      NOT NULL,
    extra           jsonb
) WITH (fillfactor = 50);

-- Which vehicle a meter feeds, from an instant until the meter's next row: periods cannot overlap.

CREATE TABLE meter_assignment (
    meter_id    text        NOT NULL COLLATE "C",
    valid_from  timestamptz NOT NULL,
    vehicle_id  text COLLATE "C",
    assigned_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (meter_id, valid_from)
);
CREATE INDEX meter_assignment_by_vehicle ON meter_assignment (vehicle_id, valid_from);

-- What could not be a reading. The id is a digest of what was rejected: a redelivery is kept once.

CREATE TABLE rejected_message (
    id          uuid        PRIMARY KEY,
    received_at timestamptz NOT NULL,
    source      text        NOT NULL,
    topic       text,
    device      text,
    reason      text        NOT NULL,
    detail      text        NOT NULL,
    payload     bytea       NOT NULL,
    replayed_at timestamptz
);
CREATE INDEX rejected_message_by_time ON rejected_message (received_at);

-- The secret is kept as its SHA-256 only: it has 256 bits, so it cannot be guessed from the hash.

CREATE TABLE api_key (
    id           text        PRIMARY KEY,
    name         text        NOT NULL,
    hash         bytea       NOT NULL,
    scopes       text[]      NOT NULL,
    devices      text[],
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    replaces     text
);

COMMENT ON COLUMN api_key.devices IS 'what it may report: EV_1, EV_* or vehicle:EV_1; null for every device';
COMMENT ON COLUMN api_key.last_used_at IS 'written every few seconds, not with every request';
COMMENT ON COLUMN api_key.replaces IS 'the key that was rotated into this one';
