-- The hours of a device, and the logins of addresses from which several mailboxes are opened.

INSERT INTO schema_version (v) VALUES (14);

ALTER TABLE devices
  ADD COLUMN hours_from smallint CHECK (hours_from BETWEEN 0 AND 1439),
  ADD COLUMN hours_to   smallint CHECK (hours_to BETWEEN 0 AND 1440),
  ADD CONSTRAINT devices_hours CHECK (num_nulls(hours_from, hours_to) IN (0, 2) AND hours_from <> hours_to);
COMMENT ON COLUMN devices.hours_from IS 'Minute of the local day of the gate''s host at which the device may begin to send; at hours_to it must stop. Null: always.';

CREATE OR REPLACE VIEW relay_devices AS
  SELECT l.login, d.name, d.senders, d.networks, d.recipient_domains, d.messages_per_hour, d.messages_per_day,
         d.recipients_per_hour, d.recipients_per_day, d.line_endings, d.until, d.hours_from, d.hours_to
  FROM device_logins l JOIN devices d ON d.name = l.device;

-- Only networks with several logins have rows, so an address with one mailbox needs none.
CREATE TABLE neighbours (
  network inet NOT NULL,
  login   text NOT NULL CHECK (login = login_key(login)),
  last    timestamptz NOT NULL,
  PRIMARY KEY (network, login)
) WITH (fillfactor = 70);
COMMENT ON COLUMN neighbours.last IS 'Last login, to the minute.';

CREATE VIEW relay_neighbours AS SELECT network, login, last FROM neighbours;

REVOKE ALL ON neighbours, relay_neighbours FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON neighbours TO pop3authd;
GRANT SELECT ON relay_neighbours TO pop3authd, authwrap;
