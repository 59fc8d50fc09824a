-- Places of a device besides its networks: countries and AS numbers, which the gate finds in MMDB
-- files of its host. Mail servers that query the database cannot check places, so for them only the
-- networks count.

INSERT INTO schema_version (v) VALUES (16);

ALTER TABLE devices ADD COLUMN places text[] NOT NULL DEFAULT '{}' CHECK (cardinality(places) <= 100);
COMMENT ON COLUMN devices.places IS 'Countries and AS numbers: DE, AS64500.';

CREATE OR REPLACE VIEW relay_devices AS
  SELECT l.login, d.name, d.senders, d.networks, d.recipient_domains, d.messages_per_hour, d.messages_per_day,
         d.recipients_per_hour, d.recipients_per_day, d.line_endings, d.until, d.hours_from, d.hours_to, d.places
  FROM device_logins l JOIN devices d ON d.name = l.device;

-- The view of migration 13, with the places.
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
          OR cardinality(d.networks) + cardinality(d.places) > 0
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
