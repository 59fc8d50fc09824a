-- The settings name addresses that are never granted. A mail server that asks this database cannot
-- read the settings, so authd writes these addresses here, and the views for mail servers leave
-- them out. The gate checks each address by its own settings.

INSERT INTO schema_version (v) VALUES (9);

CREATE TABLE ungrantable (
  host  text NOT NULL CHECK (length(host) <= 255),
  net   cidr NOT NULL,
  alone boolean NOT NULL,
  seen  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (host, net)
);
COMMENT ON COLUMN ungrantable.host IS 'Host from whose settings and addresses the row comes.';
COMMENT ON COLUMN ungrantable.alone IS
  'Addresses in it embed IPv4 addresses: a single one can be granted, but no network of them, because no prefix separates the proxies from the others.';

-- A host that was taken out of service counts for 30 days.
CREATE VIEW relay_ungrantable AS
  SELECT net, alone FROM ungrantable WHERE seen > now() - interval '30 days';

-- The view of migration 8 without ungrantable addresses. An allowed network is divided into the
-- parts that remain. A login's /64 that contains a proxy is left out whole.
CREATE OR REPLACE VIEW relay_clients AS
  SELECT CASE WHEN family(g.ip) = 4 THEN host(g.ip) END AS address, g.ip AS network, g.until
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net && g.ip OR b.login = lower(g.username)) AND b.since <= now() AND b.until > now())
    AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net && g.ip AND NOT u.alone)
  UNION ALL
  SELECT CASE WHEN family(part.net) = 4 AND masklen(part.net) = 32 THEN host(part.net) END, part.net, part.until
  FROM (
    WITH RECURSIVE cut AS (
      SELECT a.net, a.until FROM allowances a WHERE a.since <= now() AND a.until > now()
      UNION ALL
      SELECT half.net, cut.until
      FROM cut, LATERAL (VALUES
        (set_masklen(cut.net, masklen(cut.net) + 1)),
        (set_masklen(broadcast(cut.net), masklen(cut.net) + 1)::cidr)) AS half (net)
      WHERE EXISTS (SELECT FROM relay_ungrantable u WHERE u.net << cut.net)
        AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net >>= cut.net)
    )
    SELECT net, until FROM cut
    WHERE NOT EXISTS (
      SELECT FROM relay_ungrantable u
      WHERE u.net && cut.net AND NOT (u.alone AND masklen(cut.net) = 128))
  ) AS part
  WHERE NOT EXISTS (SELECT FROM blocks b WHERE b.net && part.net AND b.since <= now() AND b.until > now());

-- The function of migration 8 without ungrantable addresses.
CREATE OR REPLACE FUNCTION may_relay(client text) RETURNS boolean
  LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  SELECT EXISTS (SELECT FROM relay_clients c WHERE c.address = client)
    OR EXISTS (
      SELECT FROM relay_allowances a
      WHERE a.net >>= asked.ip AND a.since <= now() AND a.until > now()
        AND NOT EXISTS (
          SELECT FROM relay_blocks b WHERE b.net >>= asked.ip AND b.since <= now() AND b.until > now())
        AND NOT EXISTS (SELECT FROM relay_ungrantable u WHERE u.net >>= asked.ip))
  FROM (
    SELECT CASE
      WHEN client ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?!$)|$)){4}$' THEN client::inet
    END AS ip
  ) AS asked
$$;

REVOKE ALL ON ungrantable, relay_ungrantable FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON ungrantable TO pop3authd;
GRANT SELECT ON relay_ungrantable TO pop3authd, authwrap;
