-- The logins of an address that belong to its present grant. A block of an address removes its
-- grant, so logins before the block do not open the address again.

INSERT INTO schema_version (v) VALUES (23);

CREATE OR REPLACE VIEW relay_neighbours AS
  SELECT n.network, n.login, n.last,
         (SELECT max(b.until) FROM blocks b WHERE b.login = n.login) AS blocked_until,
         coalesce((SELECT n.last >= g.granted_first FROM grants g WHERE g.ip = n.network), false) AS granted
  FROM neighbours n;
