-- A block applies as soon as its command has answered, at any clock of the database. After a
-- failover, or when the clock is set back, "since" may be in the future for some time. Only the
-- history uses "since".

INSERT INTO schema_version (v) VALUES (12);

-- The view of migration 10 with this change.
CREATE OR REPLACE VIEW relay_clients AS
  SELECT CASE WHEN family(g.ip) = 4 THEN host(g.ip) END AS address, g.ip AS network, g.until
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net && g.ip OR b.net >>= g.embedded_ipv4 OR b.login = login_key(g.username)) AND b.until > now())
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
    WHERE (b.net && part.net OR b.net >>= part.embedded_ipv4) AND b.until > now());

-- The function of migration 9 with this change.
CREATE OR REPLACE FUNCTION may_relay(client text) RETURNS boolean
  LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  SELECT EXISTS (SELECT FROM relay_clients c WHERE c.address = client)
    OR EXISTS (
      SELECT FROM relay_allowances a
      WHERE a.net >>= asked.ip AND a.since <= now() AND a.until > now()
        AND NOT EXISTS (
          SELECT FROM relay_blocks b WHERE b.net >>= asked.ip AND b.until > now())
        AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net >>= asked.ip))
  FROM (
    SELECT CASE
      WHEN client ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?!$)|$)){4}$' THEN client::inet
    END AS ip
  ) AS asked
$$;
