-- A bridge that ends unexpectedly while others work raises an alarm of its own.

INSERT INTO alarm_rule (name, measure, direction, raise_at, clear_at, severity, for_s) VALUES
    ('bridge-lost', 'bridgesLost', 'above', 0, 0, 'critical', 60)
ON CONFLICT DO NOTHING;
