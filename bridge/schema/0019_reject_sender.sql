-- The same message from two senders is two rejects, so that each of them is named.

ALTER TABLE rejected_message ADD sender text;
COMMENT ON COLUMN rejected_message.sender IS 'id of the API key that sent it; null for MQTT, where the topic names the device, and for a reading that only the database refused';
