-- The login of an address with several logins does not lend its name to mail while the login is
-- blocked.

INSERT INTO schema_version (v) VALUES (21);

CREATE OR REPLACE VIEW relay_neighbours AS
  SELECT n.network, n.login, n.last,
         (SELECT max(b.until) FROM blocks b WHERE b.login = n.login) AS blocked_until
  FROM neighbours n;
