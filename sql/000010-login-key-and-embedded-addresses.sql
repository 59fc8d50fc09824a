-- lower() depends on the locale of the database, so a block of a login could hold on one server and
-- not on another. A block of an IPv4 address did not close the customer's IPv6 addresses that embed
-- it (NAT64, SIIT, 6to4, Teredo).

INSERT INTO schema_version (v) VALUES (10);

-- Same result as loginKey in src/wire/login-key.ts: two logins with the same key are one login.
-- Views inline the function with the rights of their reader, so every role may execute it.
CREATE FUNCTION login_key(login text) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN strpos(login, '@') > 0 THEN rtrim(lower(login COLLATE "C"), '.') ELSE lower(login COLLATE "C") END
$$;

ALTER TABLE blocks DROP CONSTRAINT blocks_login_check;
UPDATE blocks SET login = login_key(login) WHERE login <> login_key(login);
ALTER TABLE blocks ADD CONSTRAINT blocks_login_check CHECK (length(login) <= 255 AND login = login_key(login));

ALTER TABLE grants ADD COLUMN embedded_ipv4 inet CHECK (family(embedded_ipv4) = 4);
ALTER TABLE allowances ADD COLUMN embedded_ipv4 inet CHECK (family(embedded_ipv4) = 4);
COMMENT ON COLUMN grants.embedded_ipv4 IS
  'The IPv4 address that "ip" embeds (RFC 6052, 7915, 3056, 4380). A block of it applies. Null: "ip" embeds none.';
COMMENT ON COLUMN allowances.embedded_ipv4 IS 'As in grants, for an allowance of a single address.';

CREATE OR REPLACE VIEW relay_gate AS
  SELECT g.ip, g.until, g.last_auth, g.username,
         (SELECT max(b.until) FROM blocks b WHERE b.login = login_key(g.username)) AS login_blocked_until,
         g.embedded_ipv4
  FROM grants g;
CREATE OR REPLACE VIEW relay_allowances AS SELECT net, since, until, embedded_ipv4 FROM allowances;

-- The view of migration 9, with blocks of logins by key, and blocks of embedded addresses.
CREATE OR REPLACE VIEW relay_clients AS
  SELECT CASE WHEN family(g.ip) = 4 THEN host(g.ip) END AS address, g.ip AS network, g.until
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net && g.ip OR b.net >>= g.embedded_ipv4 OR b.login = login_key(g.username))
        AND b.since <= now() AND b.until > now())
    AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net && g.ip AND NOT u.alone)
  UNION ALL
  SELECT CASE WHEN family(part.net) = 4 AND masklen(part.net) = 32 THEN host(part.net) END, part.net, part.until
  FROM (
    WITH RECURSIVE cut AS (
      SELECT a.net, a.until, a.embedded_ipv4 FROM allowances a WHERE a.since <= now() AND a.until > now()
      UNION ALL
      SELECT half.net, cut.until, cut.embedded_ipv4
      FROM cut, LATERAL (VALUES
        (set_masklen(cut.net, masklen(cut.net) + 1)),
        (set_masklen(broadcast(cut.net), masklen(cut.net) + 1)::cidr)) AS half (net)
      WHERE EXISTS (SELECT FROM relay_ungrantable u WHERE u.net << cut.net)
        AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net >>= cut.net)
    )
    SELECT net, until, embedded_ipv4 FROM cut
    WHERE NOT EXISTS (
      SELECT FROM relay_ungrantable u
      WHERE u.net && cut.net AND NOT (u.alone AND masklen(cut.net) = 128))
  ) AS part
  WHERE NOT EXISTS (
    SELECT FROM blocks b
    WHERE (b.net && part.net OR b.net >>= part.embedded_ipv4) AND b.since <= now() AND b.until > now());
