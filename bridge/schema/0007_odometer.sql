-- The distance that a vehicle has driven. As in 0005 only the catalogue changes.

ALTER TABLE vehicle_telemetry_history ADD odometer_km float8;
ALTER TABLE vehicle_live_status ADD odometer_km float8;
COMMENT ON COLUMN vehicle_telemetry_history.odometer_km IS 'distance driven since the vehicle was made, km';
