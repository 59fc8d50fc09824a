-- A device opens nothing after its end, or for an address outside its networks. The gate and the
-- cdb export apply this rule, so the view for mail servers must apply it too.

INSERT INTO schema_version (v) VALUES (13);

-- The view of migration 12, with the devices.
CREATE OR REPLACE VIEW relay_clients AS
  SELECT CASE WHEN family(g.ip) = 4 THEN host(g.ip) END AS address, g.ip AS network, g.until
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net && g.ip OR b.net >>= g.embedded_ipv4 OR b.login = login_key(g.username)) AND b.until > now())
    AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net && g.ip AND NOT u.alone)
    AND NOT EXISTS (
      SELECT FROM relay_devices d
      WHERE d.login = login_key(g.username)
        AND (d.until <= now()
          OR cardinality(d.networks) > 0
            AND NOT (g.ip <<= ANY (d.networks) OR coalesce(g.embedded_ipv4 <<= ANY (d.networks), false))))
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
