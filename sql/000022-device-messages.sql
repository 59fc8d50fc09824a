-- Messages of each device by hour, as the gates of all hosts count them. Programs of schema 21 do
-- not know the table. Their gates report minutes, which device_hours counts as before.

INSERT INTO schema_version (v) VALUES (22);

CREATE TABLE device_messages (
  device   text NOT NULL CHECK (length(device) <= 255),
  hour     timestamptz NOT NULL,
  messages bigint NOT NULL,
  PRIMARY KEY (device, hour)
);
COMMENT ON TABLE device_messages IS 'Messages that the front, the policy service and the query service accepted from a device in an hour of UTC.';

REVOKE ALL ON device_messages FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON device_messages TO pop3authd;
