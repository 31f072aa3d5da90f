-- What each process tells about itself: one row, replaced every few seconds. A row that is not replaced is that of a process
-- that is frozen, cut off or killed.

-- No index but the key, so that a new version of a row stays on its page (HOT); half of each page is free for it.
CREATE TABLE process_status (
    program           text        NOT NULL COLLATE "C" CHECK (program IN ('bridge', 'keeper', 'api')),
    instance          text        NOT NULL COLLATE "C",
    name              text,
    version           text        NOT NULL,
    started_at        timestamptz NOT NULL,
    reported_at       timestamptz NOT NULL DEFAULT now(),
    active            boolean     NOT NULL,
    problem           text,
    readings_per_s    float8,
    commit_mean_s     float8,
    commit_p99_s      float8,
    waiting           float8,
    capacity          float8,
    lag_s             float8,
    quarters_behind_s float8,
    dirty_quarters    float8,
    certificate_days  float8,
    disk_days         float8,
    PRIMARY KEY (program, instance)
) WITH (fillfactor = 50);
COMMENT ON TABLE process_status IS 'one row for each process that runs, or has stopped reporting in the last day';
COMMENT ON COLUMN process_status.instance IS 'host name and HTTP port; a restarted process replaces its row';
COMMENT ON COLUMN process_status.name IS 'of a bridge, FLEET_BRIDGE_NAME';
COMMENT ON COLUMN process_status.active IS 'false for a process in standby';
COMMENT ON COLUMN process_status.problem IS 'why it is not ready';
COMMENT ON COLUMN process_status.readings_per_s IS 'items committed, since the report before';
COMMENT ON COLUMN process_status.commit_mean_s IS 'time from the first attempt to the commit of a batch, since the report before';
COMMENT ON COLUMN process_status.waiting IS 'readings in memory that are not committed yet';
COMMENT ON COLUMN process_status.lag_s IS
    'of a writer, how long readings have waited without any commit; of a keeper, of the duty that has been due for longest';

INSERT INTO role_right (role, privileges, name) VALUES
    ('fleet_writer', 'SELECT, INSERT, UPDATE, DELETE', 'process_status'),
    ('fleet_reader', 'SELECT', 'process_status'),
    ('fleet_reader', 'SELECT', 'database_size');
