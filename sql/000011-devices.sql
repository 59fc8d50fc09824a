-- Rules for the mail of a login: senders, networks, recipient domains and limits. auth-relay device
-- writes these tables, and the gate reads the view with each lookup.

INSERT INTO schema_version (v) VALUES (11);

CREATE TABLE devices (
  name                text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
  senders             text[] NOT NULL CHECK (cardinality(senders) <= 100),
  networks            cidr[] NOT NULL CHECK (cardinality(networks) <= 100),
  recipient_domains   text[] NOT NULL CHECK (cardinality(recipient_domains) <= 1000),
  messages_per_hour   integer NOT NULL CHECK (messages_per_hour >= 0),
  messages_per_day    integer NOT NULL CHECK (messages_per_day >= 0),
  recipients_per_hour integer NOT NULL CHECK (recipients_per_hour >= 0),
  recipients_per_day  integer NOT NULL CHECK (recipients_per_day >= 0),
  line_endings        text NOT NULL CHECK (line_endings IN ('strict', 'repair')),
  until               timestamptz NOT NULL,
  owner               text NOT NULL CHECK (length(owner) <= 255),
  note                text NOT NULL CHECK (length(note) <= 500)
);
COMMENT ON COLUMN devices.senders IS 'Envelope senders; empty: the setting wrap.sender_binding decides.';
COMMENT ON COLUMN devices.networks IS 'Networks from which a login opens the relay; empty: all.';
COMMENT ON COLUMN devices.recipient_domains IS 'Empty: all.';
COMMENT ON COLUMN devices.messages_per_hour IS '0: no limit. The same applies to the other limits.';

CREATE TABLE device_logins (
  login  text PRIMARY KEY CHECK (length(login) <= 255 AND login = login_key(login)),
  device text NOT NULL REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX device_logins_device ON device_logins (device);

CREATE VIEW relay_devices AS
  SELECT l.login, d.name, d.senders, d.networks, d.recipient_domains, d.messages_per_hour, d.messages_per_day,
         d.recipients_per_hour, d.recipients_per_day, d.line_endings, d.until
  FROM device_logins l JOIN devices d ON d.name = l.device;

REVOKE ALL ON devices, device_logins, relay_devices FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON devices, device_logins TO pop3authd;
GRANT SELECT ON relay_devices TO pop3authd, authwrap;
