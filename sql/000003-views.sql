-- Views for the gate and for mail servers.

INSERT INTO schema_version (v) VALUES (3);

-- The grants for the gate. Mail is attributed to the login, which is null if store_user is off. The
-- view has no condition for the time, because a query can be about another time than now().
CREATE VIEW relay_gate AS
  SELECT g.ip, g.until, g.last_auth, g.username,
         (SELECT max(b.until) FROM blocks b WHERE b.login = lower(g.username)) AS login_blocked_until
  FROM grants g;
CREATE VIEW relay_blocks AS SELECT net, since, until FROM blocks WHERE net IS NOT NULL;
CREATE VIEW relay_allowances AS SELECT net, since, until FROM allowances;

-- Addresses and networks that may relay now, for Postfix (pgsql:), Exim and other programs that use
-- SQL:
--   SELECT 'OK' FROM relay_clients WHERE address = '192.0.2.7'
--   SELECT 1 FROM relay_clients WHERE network >>= inet '192.0.2.7'
--
-- "address" is the text of a single address, and null for a network. A network with a blocked part
-- is left out whole, because this view cannot subtract. The gate can, because it knows the client's
-- address.
CREATE VIEW relay_clients AS
  SELECT host(g.ip) AS address, g.ip AS network, g.until
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net && g.ip OR b.login = lower(g.username)) AND b.since <= now() AND b.until > now())
  UNION ALL
  SELECT CASE WHEN masklen(a.net) = CASE family(a.net) WHEN 4 THEN 32 ELSE 128 END THEN host(a.net) END, a.net, a.until
  FROM allowances a
  WHERE a.since <= now() AND a.until > now()
    AND NOT EXISTS (SELECT FROM blocks b WHERE b.net && a.net AND b.since <= now() AND b.until > now());

-- The table of the original pop3-authd.
CREATE VIEW relay AS
  SELECT ip, last_auth, first_auth, hits, daemon, username, tls
  FROM grants WHERE until > now() AND last_auth <= now() + interval '60 seconds';
