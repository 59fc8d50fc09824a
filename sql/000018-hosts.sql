-- On a site with several hosts: the host that received a login event, and the host whose gate
-- relayed mail. Null: stored by an older release. The columns have no CHECK, because a CHECK on a
-- new column reads the whole history.

INSERT INTO schema_version (v) VALUES (18);

ALTER TABLE login_event ADD COLUMN host text;
ALTER TABLE relay_use ADD COLUMN host text;
COMMENT ON COLUMN login_event.host IS 'Host of the authd that stored the login.';
COMMENT ON COLUMN relay_use.host IS 'Host of the authd that stored the use; the gate reports to the authd of its host.';

-- The view of migration 6, with the host.
CREATE OR REPLACE VIEW status_events AS
  SELECT at, CASE WHEN refused IS NULL THEN 'grant' ELSE 'refused' END AS kind, ip, daemon, method, tls, username AS login, refused AS reason, host
  FROM login_event WHERE at > now() - interval '1 day'
  UNION ALL
  SELECT at, 'relay', ip, door, NULL, NULL, NULL, NULL, host
  FROM relay_use WHERE at > now() - interval '1 day';
