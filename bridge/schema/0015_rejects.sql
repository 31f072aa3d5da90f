-- The rejects of one device are listed by time. Those of all devices have an index since 0001.

CREATE INDEX rejected_message_of_device ON rejected_message (device, received_at) WHERE device IS NOT NULL;
