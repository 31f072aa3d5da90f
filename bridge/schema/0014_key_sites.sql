-- A key may be limited to sites, too: to the devices that the register declares there when it is used.

ALTER TABLE api_key ADD COLUMN sites text[];
COMMENT ON COLUMN api_key.devices IS 'what it may report and read: EV_1, EV_* or vehicle:EV_1; null: no such limit';
COMMENT ON COLUMN api_key.sites IS 'sites of the device register whose devices it may report and read; null: no such limit';

-- As in 0003, with the sites: every process that caches keys is notified of every change that may take rights away.
DROP TRIGGER announce ON api_key;
CREATE TRIGGER announce AFTER DELETE OR UPDATE OF hash, scopes, devices, sites, expires_at, revoked_at ON api_key
    FOR EACH ROW EXECUTE FUNCTION announce_api_key();
