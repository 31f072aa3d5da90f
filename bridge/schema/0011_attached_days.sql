-- The days of each history that the keeper knows to be attached. One that it does not know may have been closed while it
-- was detached, so the keeper marks all of its quarter hours.
CREATE TABLE quarter_day (
    kind text NOT NULL,
    day  date NOT NULL,
    PRIMARY KEY (kind, day)
);
INSERT INTO role_right (role, privileges, name) VALUES ('fleet_writer', 'SELECT, INSERT, DELETE', 'quarter_day');
