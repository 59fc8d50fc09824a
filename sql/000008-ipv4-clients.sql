-- Postfix looks up the whole text of an address in a table, then prefixes of it, shortened from the
-- right. For 2001:db8::7:9 it also looks up 2001:db8::7, which is another address. Only IPv4
-- addresses are therefore compared as text, because no prefix of an IPv4 address is an address.

INSERT INTO schema_version (v) VALUES (8);

DROP INDEX grants_address;
CREATE INDEX grants_address ON grants ((CASE WHEN family(ip) = 4 THEN host(ip) END));

-- The view of migration 3; "address" is the text of a single IPv4 address, and null in all other
-- rows.
CREATE OR REPLACE VIEW relay_clients AS
  SELECT CASE WHEN family(g.ip) = 4 THEN host(g.ip) END AS address, g.ip AS network, g.until
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net && g.ip OR b.login = lower(g.username)) AND b.since <= now() AND b.until > now())
  UNION ALL
  SELECT CASE WHEN family(a.net) = 4 AND masklen(a.net) = 32 THEN host(a.net) END, a.net, a.until
  FROM allowances a
  WHERE a.since <= now() AND a.until > now()
    AND NOT EXISTS (SELECT FROM blocks b WHERE b.net && a.net AND b.since <= now() AND b.until > now());

-- For Postfix (pgsql:):  SELECT 'OK' WHERE may_relay('%s')
-- True for an IPv4 address that has a grant or lies in an allowed network. False for every other
-- text: IPv6 addresses, names, and parts of addresses.
CREATE FUNCTION may_relay(client text) RETURNS boolean
  LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  SELECT EXISTS (SELECT FROM relay_clients c WHERE c.address = client)
    OR EXISTS (
      SELECT FROM relay_allowances a
      WHERE a.net >>= asked.ip AND a.since <= now() AND a.until > now()
        AND NOT EXISTS (
          SELECT FROM relay_blocks b WHERE b.net >>= asked.ip AND b.since <= now() AND b.until > now()))
  FROM (
    SELECT CASE
      WHEN client ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?!$)|$)){4}$' THEN client::inet
    END AS ip
  ) AS asked
$$;
REVOKE ALL ON FUNCTION may_relay(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION may_relay(text) TO pop3authd, authwrap;
