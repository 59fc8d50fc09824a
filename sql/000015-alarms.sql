-- Findings for the administrator. Each alarm has one start and one end.

INSERT INTO schema_version (v) VALUES (15);

CREATE TABLE alarms (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rule       text NOT NULL CHECK (length(rule) <= 32),
  subject    text NOT NULL CHECK (length(subject) <= 255),
  detail     text NOT NULL CHECK (length(detail) <= 500),
  since      timestamptz NOT NULL,
  seen       timestamptz NOT NULL,
  until      timestamptz,
  told_start timestamptz,
  told_end   timestamptz
);
COMMENT ON COLUMN alarms.subject IS 'The login, the address, the device or the host.';
COMMENT ON COLUMN alarms.seen IS 'Last time at which the rule found the alarm.';
COMMENT ON COLUMN alarms.until IS 'End of the alarm; null while it lasts.';
COMMENT ON COLUMN alarms.told_start IS 'Time at which a process claimed the report of the start; told_end: of the end.';
CREATE UNIQUE INDEX alarms_open ON alarms (rule, subject) WHERE until IS NULL;
CREATE INDEX alarms_since ON alarms (since);

-- State of the alarm rules, so that they need not read weeks of history. It contains the time of a
-- device's last login. It also counts the minutes of each hour in which a grant of the device was
-- used.
ALTER TABLE device_logins ADD COLUMN last_login timestamptz;
CREATE TABLE device_hours (
  device  text NOT NULL,
  hour    timestamptz NOT NULL,
  minutes smallint NOT NULL,
  PRIMARY KEY (device, hour)
);

CREATE VIEW status_alarms AS
  SELECT rule, subject, detail, since, until FROM alarms WHERE until IS NULL OR until > now() - interval '1 day';

CREATE VIEW status_devices AS
  SELECT d.name, array_agg(l.login ORDER BY l.login) AS logins, max(l.last_login) AS last_login, d.until
  FROM devices d JOIN device_logins l ON l.device = d.name GROUP BY d.name;

REVOKE ALL ON alarms, device_hours, status_alarms, status_devices FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON alarms, device_hours TO pop3authd;
GRANT SELECT ON status_alarms, status_devices TO authstatus;
