-- The whole schema of auth-relay. An administrator can set up an empty database with it:
--   createdb pop3authd && psql -d pop3authd -f pop3authd.sql
-- Generated from the numbered files of this directory by scripts/generate/pop3authd-sql.ts. A database
-- that was made from this file is up to date.
\set ON_ERROR_STOP on

-- 000001-grants.sql
BEGIN;
-- Addresses that may relay: grants by login, allowances and blocks by the administrator. All times
-- are those of the database (timestamptz). "until" is exclusive: at this time the row has ended.

CREATE TABLE schema_version (
  v       integer PRIMARY KEY,
  applied timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_version IS 'One row for each migration. A program with fewer migrations refuses to run.';
INSERT INTO schema_version (v) VALUES (1);

-- One row for each address, or for each /64 network of IPv6 if ipv6_prefix is 64.
CREATE TABLE grants (
  ip            inet PRIMARY KEY
                CHECK ((family(ip) = 4 AND masklen(ip) = 32) OR (family(ip) = 6 AND masklen(ip) IN (64, 128))),
  until         timestamptz NOT NULL,
  last_auth     timestamptz NOT NULL DEFAULT now(),
  first_auth    timestamptz NOT NULL DEFAULT now(),
  granted_first timestamptz NOT NULL DEFAULT now(),
  hits          bigint NOT NULL DEFAULT 1,
  daemon        text NOT NULL CHECK (length(daemon) <= 32),
  username      text CHECK (length(username) <= 255),
  tls           boolean
);
COMMENT ON COLUMN grants.until IS 'The address may relay before this moment.';
COMMENT ON COLUMN grants.last_auth IS 'Last POP3 login. More than 60 s in the future (the clock was set back): the row is not valid.';
COMMENT ON COLUMN grants.granted_first IS 'First login of the unbroken series of grants that max_lifetime limits.';
COMMENT ON COLUMN grants.username IS 'Login name of the last login; null if store_user is off.';
CREATE INDEX grants_until ON grants (until);
-- For relay_clients, because Postfix queries with the text of an address.
CREATE INDEX grants_address ON grants (host(ip));

-- Addresses, networks and logins that must not relay. The end of a block sets "until". The row
-- stays as long as the history.
CREATE TABLE blocks (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  net    cidr,
  login  text CHECK (length(login) <= 255 AND login = lower(login)),
  since  timestamptz NOT NULL DEFAULT now(),
  until  timestamptz NOT NULL DEFAULT 'infinity',
  reason text NOT NULL CHECK (length(reason) <= 500),
  owner  text NOT NULL CHECK (length(owner) <= 255),
  CHECK (num_nonnulls(net, login) = 1)
);
CREATE INDEX blocks_net ON blocks USING gist (net inet_ops) WHERE net IS NOT NULL;
CREATE INDEX blocks_login ON blocks (login) WHERE login IS NOT NULL;

-- Networks that may relay without a login. A block overrides an allowance.
CREATE TABLE allowances (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  net    cidr NOT NULL,
  since  timestamptz NOT NULL DEFAULT now(),
  until  timestamptz NOT NULL DEFAULT 'infinity',
  reason text NOT NULL CHECK (length(reason) <= 500),
  owner  text NOT NULL CHECK (length(owner) <= 255)
);
CREATE INDEX allowances_net ON allowances USING gist (net inet_ops);
COMMIT;

-- 000002-history.sql
BEGIN;
-- Two histories with one partition a day (UTC), to which rows are only added: which login opened
-- the relay for an address, and which grants were used.

INSERT INTO schema_version (v) VALUES (2);

CREATE TABLE login_event (
  at       timestamptz NOT NULL,
  ip       inet NOT NULL,
  network  inet NOT NULL,
  daemon   text NOT NULL,
  method   text NOT NULL,
  tls      boolean NOT NULL,
  username text,
  session  text NOT NULL,
  until    timestamptz,
  refused  text,
  CHECK (num_nonnulls(until, refused) = 1)
) PARTITION BY RANGE (at);
COMMENT ON COLUMN login_event.network IS 'The granted address, or its /64.';
COMMENT ON COLUMN login_event.refused IS 'Reason why nothing was granted; null if a grant was stored.';
CREATE INDEX login_event_network_at ON login_event (network, at);

CREATE TABLE relay_use (
  at   timestamptz NOT NULL,
  ip   inet NOT NULL,
  door text NOT NULL CHECK (length(door) <= 32)
) PARTITION BY RANGE (at);
CREATE INDEX relay_use_ip_at ON relay_use (ip, at);

-- Rows of days without their own partition, so that no login fails because of a missing partition.
CREATE TABLE login_event_default PARTITION OF login_event DEFAULT;
CREATE TABLE relay_use_default PARTITION OF relay_use DEFAULT;

-- Makes the partitions from yesterday to three days ahead, and drops those older than keep_days.
-- Runs with the rights of its owner, because the role that adds to the histories may neither change
-- nor remove their rows.
CREATE FUNCTION keep_history(keep_days integer, at_time timestamptz DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  today  date := (coalesce(at_time, now()) AT TIME ZONE 'UTC')::date;
  oldest date := today - greatest(keep_days, 1);
  parent text;
  child  text;
  day    date;
  since  timestamptz;
  till   timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(418565088363); -- Two programs must not make the same partition.
  FOREACH parent IN ARRAY ARRAY['login_event', 'relay_use'] LOOP
    FOR ahead IN -1 .. 3 LOOP
      day := today + ahead;
      child := parent || to_char(day, '"_"YYYYMMDD');
      since := day::timestamp AT TIME ZONE 'UTC';
      till := (day + 1)::timestamp AT TIME ZONE 'UTC';
      IF day >= oldest AND to_regclass(child) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
        EXECUTE format(
          'WITH moved AS (DELETE FROM %I WHERE at >= %L AND at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
          parent || '_default', since, till, child);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, since, till);
      END IF;
    END LOOP;
    FOR child IN
      SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = parent::regclass AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8) < to_char(oldest, 'YYYYMMDD')
    LOOP
      EXECUTE format('DROP TABLE %I', child);
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE at < %L', parent || '_default', oldest::timestamp AT TIME ZONE 'UTC');
  END LOOP;
  DELETE FROM blocks WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM allowances WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
END
$$;
SELECT keep_history(30);
COMMIT;

-- 000003-views.sql
BEGIN;
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
COMMIT;

-- 000004-roles.sql
BEGIN;
-- Two roles besides the owner of the tables: pop3authd writes grants, authwrap only reads them.
-- Both have no password, so a login with a password fails until the administrator sets one.

INSERT INTO schema_version (v) VALUES (4);

DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['pop3authd', 'authwrap'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT', wanted);
      EXCEPTION
        -- Another database of the server has just made the role.
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
          RAISE EXCEPTION 'this role may not create the role %', wanted
            USING HINT = format('As a superuser: CREATE ROLE %I LOGIN', wanted), ERRCODE = 'insufficient_privilege';
      END;
    END IF;
  END LOOP;
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO pop3authd, authwrap', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO pop3authd, authwrap;

REVOKE ALL ON schema_version, grants, blocks, allowances, login_event, relay_use,
  relay_gate, relay_blocks, relay_allowances, relay_clients, relay FROM PUBLIC;
REVOKE ALL ON FUNCTION keep_history(integer, timestamptz) FROM PUBLIC;

GRANT SELECT ON schema_version, relay_gate, relay_blocks, relay_allowances, relay_clients TO pop3authd, authwrap;

GRANT SELECT, INSERT, UPDATE, DELETE ON grants TO pop3authd;
GRANT SELECT, INSERT ON blocks, allowances, login_event, relay_use TO pop3authd;
-- The end of a block or an allowance is its only column that may change.
GRANT UPDATE (until) ON blocks, allowances TO pop3authd;
GRANT SELECT ON relay TO pop3authd;
GRANT EXECUTE ON FUNCTION keep_history(integer, timestamptz) TO pop3authd;
COMMIT;

-- 000005-refresh-in-place.sql
BEGIN;
-- Most logins come from an address that has a grant. With "until" in no index and free space in
-- each page, PostgreSQL updates the row in place (heap-only) and no index.

INSERT INTO schema_version (v) VALUES (5);

-- The sweep reads the whole table once a minute; each lookup is by address.
DROP INDEX grants_until;
ALTER TABLE grants SET (fillfactor = 70);
COMMIT;

-- 000006-status.sql
BEGIN;
-- Views for the status page, with a role that can read nothing else, and indexes by time for
-- queries about recent events.

INSERT INTO schema_version (v) VALUES (6);

-- The histories grow in the order of time. A block range index costs very little, and a query by
-- time reads only the end of the table.
CREATE INDEX login_event_at ON login_event USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX relay_use_at ON relay_use USING brin (at) WITH (pages_per_range = 32, autosummarize = on);

-- The grants in force, with the columns for an administrator.
CREATE VIEW status_grants AS
  SELECT g.ip AS network, g.until, g.first_auth AS first, g.last_auth AS last, g.hits AS logins, g.daemon, g.username AS login, g.tls
  FROM grants g
  -- A block deletes the grants that it covers, so blocks need no check here.
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds';

-- One day of both histories. For relayed mail, "daemon" is the service that opened the relay.
CREATE VIEW status_events AS
  SELECT at, CASE WHEN refused IS NULL THEN 'grant' ELSE 'refused' END AS kind, ip, daemon, method, tls, username AS login, refused AS reason
  FROM login_event WHERE at > now() - interval '1 day'
  UNION ALL
  SELECT at, 'relay', ip, door, NULL, NULL, NULL, NULL
  FROM relay_use WHERE at > now() - interval '1 day';

-- Numbers of allowances and blocks in force.
CREATE VIEW status_decrees AS
  SELECT (SELECT count(*) FROM allowances WHERE since <= now() AND until > now()) AS allowances,
         (SELECT count(*) FROM blocks WHERE since <= now() AND until > now()) AS blocks;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authstatus') THEN
    BEGIN
      CREATE ROLE authstatus LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT;
    EXCEPTION
      -- Another database of the server has just made the role.
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'this role may not create the role authstatus'
          USING HINT = 'As a superuser: CREATE ROLE authstatus LOGIN', ERRCODE = 'insufficient_privilege';
    END;
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO authstatus', current_database());
END
$$;
GRANT USAGE ON SCHEMA public TO authstatus;
REVOKE ALL ON status_grants, status_events, status_decrees FROM PUBLIC;
GRANT SELECT ON schema_version, status_grants, status_events, status_decrees TO authstatus;
COMMIT;

-- 000007-gate-decisions.sql
BEGIN;
-- Decisions of the gates. Clients without a grant come from the whole Internet, so the number of
-- rows does not depend on the number of clients. There is one row for a host, a service (column
-- `door`) and a minute, and one row for a host and a service with the addresses refused last.

INSERT INTO schema_version (v) VALUES (7);

CREATE TABLE gate_tally (
  minute    timestamptz NOT NULL,
  host      text NOT NULL,
  door      text NOT NULL CHECK (length(door) <= 32),
  relayed   bigint NOT NULL,
  refused   bigint NOT NULL,
  undecided bigint NOT NULL,
  never     bigint NOT NULL,
  PRIMARY KEY (minute, host, door)
) WITH (fillfactor = 70); -- The row of the current minute is updated in its page every second.
COMMENT ON COLUMN gate_tally.refused IS 'The query found no grant. Mail for local domains was accepted.';
COMMENT ON COLUMN gate_tally.undecided IS 'The query had no answer in time, so the relay stayed closed.';
COMMENT ON COLUMN gate_tally.never IS 'No query, because the address is ungrantable.';

CREATE TABLE gate_refused (
  host      text NOT NULL,
  door      text NOT NULL CHECK (length(door) <= 32),
  at        timestamptz NOT NULL,
  addresses inet[] NOT NULL CHECK (cardinality(addresses) <= 20),
  PRIMARY KEY (host, door)
) WITH (fillfactor = 50);

-- The function of migration 2, with the tallies added.
CREATE OR REPLACE FUNCTION keep_history(keep_days integer, at_time timestamptz DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  today  date := (coalesce(at_time, now()) AT TIME ZONE 'UTC')::date;
  oldest date := today - greatest(keep_days, 1);
  parent text;
  child  text;
  day    date;
  since  timestamptz;
  till   timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(418565088363); -- Two programs must not make the same partition.
  FOREACH parent IN ARRAY ARRAY['login_event', 'relay_use'] LOOP
    FOR ahead IN -1 .. 3 LOOP
      day := today + ahead;
      child := parent || to_char(day, '"_"YYYYMMDD');
      since := day::timestamp AT TIME ZONE 'UTC';
      till := (day + 1)::timestamp AT TIME ZONE 'UTC';
      IF day >= oldest AND to_regclass(child) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
        EXECUTE format(
          'WITH moved AS (DELETE FROM %I WHERE at >= %L AND at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
          parent || '_default', since, till, child);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, since, till);
      END IF;
    END LOOP;
    FOR child IN
      SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = parent::regclass AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8) < to_char(oldest, 'YYYYMMDD')
    LOOP
      EXECUTE format('DROP TABLE %I', child);
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE at < %L', parent || '_default', oldest::timestamp AT TIME ZONE 'UTC');
  END LOOP;
  DELETE FROM gate_tally WHERE minute < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM blocks WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM allowances WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
END
$$;

-- One day of tallies, for the status page.
CREATE VIEW status_gate AS
  SELECT minute, host, door, relayed, refused, undecided, never FROM gate_tally WHERE minute > now() - interval '1 day';

REVOKE ALL ON gate_tally, gate_refused, status_gate FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON gate_tally, gate_refused TO pop3authd;
GRANT SELECT ON status_gate TO authstatus;
COMMIT;

-- 000008-ipv4-clients.sql
BEGIN;
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
COMMIT;

-- 000009-ungrantable.sql
BEGIN;
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
COMMIT;

-- 000010-login-key-and-embedded-addresses.sql
BEGIN;
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
COMMIT;

-- 000011-devices.sql
BEGIN;
-- Rules for the mail of a login: senders, networks, recipient domains and limits. auth-relay device
-- writes these tables, and the gate reads the view with each lookup.

INSERT INTO schema_version (v) VALUES (11);

CREATE TABLE devices (
  name                text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
  senders             text[] NOT NULL CHECK (cardinality(senders) <= 100),
  networks            cidr[] NOT NULL CHECK (cardinality(networks) <= 100),
  recipient_domains   text[] NOT NULL CHECK (cardinality(recipient_domains) <= 1000),
  messages_per_hour   integer NOT NULL CHECK (messages_per_hour >= 0),
  messages_per_day    integer NOT NULL CHECK (messages_per_day >= 0),
  recipients_per_hour integer NOT NULL CHECK (recipients_per_hour >= 0),
  recipients_per_day  integer NOT NULL CHECK (recipients_per_day >= 0),
  line_endings        text NOT NULL CHECK (line_endings IN ('strict', 'repair')),
  until               timestamptz NOT NULL,
  owner               text NOT NULL CHECK (length(owner) <= 255),
  note                text NOT NULL CHECK (length(note) <= 500)
);
COMMENT ON COLUMN devices.senders IS 'Envelope senders; empty: the setting wrap.sender_binding decides.';
COMMENT ON COLUMN devices.networks IS 'Networks from which a login opens the relay; empty: all.';
COMMENT ON COLUMN devices.recipient_domains IS 'Empty: all.';
COMMENT ON COLUMN devices.messages_per_hour IS '0: no limit. The same applies to the other limits.';

CREATE TABLE device_logins (
  login  text PRIMARY KEY CHECK (length(login) <= 255 AND login = login_key(login)),
  device text NOT NULL REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX device_logins_device ON device_logins (device);

CREATE VIEW relay_devices AS
  SELECT l.login, d.name, d.senders, d.networks, d.recipient_domains, d.messages_per_hour, d.messages_per_day,
         d.recipients_per_hour, d.recipients_per_day, d.line_endings, d.until
  FROM device_logins l JOIN devices d ON d.name = l.device;

REVOKE ALL ON devices, device_logins, relay_devices FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON devices, device_logins TO pop3authd;
GRANT SELECT ON relay_devices TO pop3authd, authwrap;
COMMIT;

-- 000012-blocks-hold-at-once.sql
BEGIN;
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
COMMIT;

-- 000013-devices-in-tables.sql
BEGIN;
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
COMMIT;

-- 000014-hours-and-neighbours.sql
BEGIN;
-- The hours of a device, and the logins of addresses from which several mailboxes are opened.

INSERT INTO schema_version (v) VALUES (14);

ALTER TABLE devices
  ADD COLUMN hours_from smallint CHECK (hours_from BETWEEN 0 AND 1439),
  ADD COLUMN hours_to   smallint CHECK (hours_to BETWEEN 0 AND 1440),
  ADD CONSTRAINT devices_hours CHECK (num_nulls(hours_from, hours_to) IN (0, 2) AND hours_from <> hours_to);
COMMENT ON COLUMN devices.hours_from IS 'Minute of the local day of the gate''s host at which the device may begin to send; at hours_to it must stop. Null: always.';

CREATE OR REPLACE VIEW relay_devices AS
  SELECT l.login, d.name, d.senders, d.networks, d.recipient_domains, d.messages_per_hour, d.messages_per_day,
         d.recipients_per_hour, d.recipients_per_day, d.line_endings, d.until, d.hours_from, d.hours_to
  FROM device_logins l JOIN devices d ON d.name = l.device;

-- Only networks with several logins have rows, so an address with one mailbox needs none.
CREATE TABLE neighbours (
  network inet NOT NULL,
  login   text NOT NULL CHECK (login = login_key(login)),
  last    timestamptz NOT NULL,
  PRIMARY KEY (network, login)
) WITH (fillfactor = 70);
COMMENT ON COLUMN neighbours.last IS 'Last login, to the minute.';

CREATE VIEW relay_neighbours AS SELECT network, login, last FROM neighbours;

REVOKE ALL ON neighbours, relay_neighbours FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON neighbours TO pop3authd;
GRANT SELECT ON relay_neighbours TO pop3authd, authwrap;
COMMIT;

-- 000015-alarms.sql
BEGIN;
-- Findings for the administrator. Each alarm has one start and one end.

INSERT INTO schema_version (v) VALUES (15);

CREATE TABLE alarms (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rule       text NOT NULL CHECK (length(rule) <= 32),
  subject    text NOT NULL CHECK (length(subject) <= 255),
  detail     text NOT NULL CHECK (length(detail) <= 500),
  since      timestamptz NOT NULL,
  seen       timestamptz NOT NULL,
  until      timestamptz,
  told_start timestamptz,
  told_end   timestamptz
);
COMMENT ON COLUMN alarms.subject IS 'The login, the address, the device or the host.';
COMMENT ON COLUMN alarms.seen IS 'Last time at which the rule found the alarm.';
COMMENT ON COLUMN alarms.until IS 'End of the alarm; null while it lasts.';
COMMENT ON COLUMN alarms.told_start IS 'Time at which a process claimed the report of the start; told_end: of the end.';
CREATE UNIQUE INDEX alarms_open ON alarms (rule, subject) WHERE until IS NULL;
CREATE INDEX alarms_since ON alarms (since);

-- State of the alarm rules, so that they need not read weeks of history. It contains the time of a
-- device's last login. It also counts the minutes of each hour in which a grant of the device was
-- used.
ALTER TABLE device_logins ADD COLUMN last_login timestamptz;
CREATE TABLE device_hours (
  device  text NOT NULL,
  hour    timestamptz NOT NULL,
  minutes smallint NOT NULL,
  PRIMARY KEY (device, hour)
);

CREATE VIEW status_alarms AS
  SELECT rule, subject, detail, since, until FROM alarms WHERE until IS NULL OR until > now() - interval '1 day';

CREATE VIEW status_devices AS
  SELECT d.name, array_agg(l.login ORDER BY l.login) AS logins, max(l.last_login) AS last_login, d.until
  FROM devices d JOIN device_logins l ON l.device = d.name GROUP BY d.name;

REVOKE ALL ON alarms, device_hours, status_alarms, status_devices FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON alarms, device_hours TO pop3authd;
GRANT SELECT ON status_alarms, status_devices TO authstatus;
COMMIT;

-- 000016-places.sql
BEGIN;
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
COMMIT;

-- 000017-standby-replies.sql
BEGIN;
-- In a cluster with synchronous replication the gate accepts answers of a primary only while its
-- synchronous standbys reply to it. pg_stat_replication shows the replies to members of
-- pg_read_all_stats only, so the owner of this function must be a member (a superuser is). The
-- gate's role sees three columns of it and nothing else.

INSERT INTO schema_version (v) VALUES (17);

CREATE FUNCTION standby_replies() RETURNS TABLE (name text, pid integer, reply_time timestamptz)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT application_name, pid, reply_time FROM pg_stat_replication
  WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum', 'potential')
$$;
REVOKE ALL ON FUNCTION standby_replies() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION standby_replies() TO pop3authd, authwrap;
COMMIT;

-- 000018-hosts.sql
BEGIN;
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
COMMIT;

-- 000019-glossary-names.sql
BEGIN;
-- Tables and columns take the names of docs/GLOSSARY.md. The renames change the catalogue only. The
-- former names stay as views for programs of an older release, which run until their host has the
-- new one.

INSERT INTO schema_version (v) VALUES (19);

-- keep_history and the alarm rules of a running program hold these locks, so no table changes its
-- name while they use it. A keep_history that waits here fails without a change, and authd repeats
-- it with its next sweep. The tables follow in the order in which the statements of running
-- programs lock them, so that a deadlock is unlikely.
SELECT pg_advisory_xact_lock(418565088363), pg_advisory_xact_lock(418565088364);

ALTER TABLE relay_use RENAME TO usage_event;
ALTER TABLE usage_event RENAME COLUMN door TO service;
ALTER TABLE gate_refused RENAME TO gate_refusals;
ALTER TABLE gate_refusals RENAME COLUMN door TO service;
ALTER TABLE gate_tally RENAME TO gate_decisions;
ALTER TABLE gate_decisions RENAME COLUMN door TO service;
ALTER TABLE alarms RENAME TO alarm;
ALTER TABLE alarm RENAME COLUMN told_start TO start_reported;
ALTER TABLE alarm RENAME COLUMN told_end TO end_reported;
ALTER SEQUENCE alarms_id_seq RENAME TO alarm_id_seq;
COMMENT ON COLUMN alarm.start_reported IS 'Time at which a process claimed the report of the start; end_reported: of the end.';

-- Partitions, indexes and constraints. keep_history finds a partition by its name.
DO $$
DECLARE
  former text;
  target text;
  part   text;
  owned  oid[];
BEGIN
  FOR former, target IN
    VALUES ('relay_use', 'usage_event'), ('gate_refused', 'gate_refusals'), ('gate_tally', 'gate_decisions'), ('alarms', 'alarm')
  LOOP
    owned := ARRAY(SELECT inhrelid FROM pg_inherits WHERE inhparent = target::regclass) || target::regclass::oid;
    FOR part IN
      SELECT relname FROM pg_class
      WHERE (oid = ANY (owned) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY (owned)))
        AND starts_with(relname, former || '_')
      ORDER BY relname
    LOOP
      EXECUTE format('ALTER TABLE %I RENAME TO %I', part, target || substr(part, length(former) + 1));
    END LOOP;
    -- A constraint of a partition follows that of its table.
    FOR part IN
      SELECT conname FROM pg_constraint
      WHERE conrelid = target::regclass AND starts_with(conname, former || '_') ORDER BY conname
    LOOP
      EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I', target, part,
        target || replace(substr(part, length(former) + 1), '_door_', '_service_'));
    END LOOP;
  END LOOP;
END
$$;

-- The function of migration 7, with the new names.
CREATE OR REPLACE FUNCTION keep_history(keep_days integer, at_time timestamptz DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  today  date := (coalesce(at_time, now()) AT TIME ZONE 'UTC')::date;
  oldest date := today - greatest(keep_days, 1);
  parent text;
  child  text;
  day    date;
  since  timestamptz;
  till   timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(418565088363); -- Two programs must not make the same partition.
  FOREACH parent IN ARRAY ARRAY['login_event', 'usage_event'] LOOP
    FOR ahead IN -1 .. 3 LOOP
      day := today + ahead;
      child := parent || to_char(day, '"_"YYYYMMDD');
      since := day::timestamp AT TIME ZONE 'UTC';
      till := (day + 1)::timestamp AT TIME ZONE 'UTC';
      IF day >= oldest AND to_regclass(child) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
        EXECUTE format(
          'WITH moved AS (DELETE FROM %I WHERE at >= %L AND at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
          parent || '_default', since, till, child);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, since, till);
      END IF;
    END LOOP;
    FOR child IN
      SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = parent::regclass AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8) < to_char(oldest, 'YYYYMMDD')
    LOOP
      EXECUTE format('DROP TABLE %I', child);
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE at < %L', parent || '_default', oldest::timestamp AT TIME ZONE 'UTC');
  END LOOP;
  DELETE FROM gate_decisions WHERE minute < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM blocks WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM allowances WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
END
$$;

-- One day of decisions, for the status page.
CREATE VIEW status_gate_decisions AS
  SELECT minute, host, service, relayed, refused, undecided, never FROM gate_decisions WHERE minute > now() - interval '1 day';

-- Numbers of grants, allowances and blocks in force.
CREATE VIEW status_totals AS
  SELECT (SELECT count(*) FROM status_grants) AS grants,
         (SELECT count(*) FROM allowances WHERE since <= now() AND until > now()) AS allowances,
         (SELECT count(*) FROM blocks WHERE since <= now() AND until > now()) AS blocks;

-- The former names. PostgreSQL passes an INSERT, UPDATE or DELETE on such a view to its table, with
-- ON CONFLICT and FOR UPDATE too.
CREATE VIEW relay_use AS SELECT at, ip, service AS door, host FROM usage_event;
CREATE VIEW gate_tally AS SELECT minute, host, service AS door, relayed, refused, undecided, never FROM gate_decisions;
CREATE VIEW gate_refused AS SELECT host, service AS door, at, addresses FROM gate_refusals;
CREATE VIEW alarms AS
  SELECT id, rule, subject, detail, since, seen, until, start_reported AS told_start, end_reported AS told_end FROM alarm;
COMMENT ON VIEW relay_use IS 'usage_event for programs before schema 19. A later release drops this view.';
COMMENT ON VIEW gate_tally IS 'gate_decisions for programs before schema 19. A later release drops this view.';
COMMENT ON VIEW gate_refused IS 'gate_refusals for programs before schema 19. A later release drops this view.';
COMMENT ON VIEW alarms IS 'alarm for programs before schema 19. A later release drops this view.';
COMMENT ON VIEW status_gate IS 'status_gate_decisions for programs before schema 19. A later release drops this view.';
COMMENT ON VIEW status_decrees IS 'status_totals for programs before schema 19. A later release drops this view.';

REVOKE ALL ON relay_use, gate_tally, gate_refused, alarms, status_gate_decisions, status_totals FROM PUBLIC;
GRANT SELECT, INSERT ON relay_use TO pop3authd;
GRANT SELECT, INSERT, UPDATE ON gate_tally, gate_refused TO pop3authd;
GRANT SELECT, INSERT, UPDATE, DELETE ON alarms TO pop3authd;
GRANT SELECT ON status_gate_decisions, status_totals TO authstatus;
COMMIT;

-- 000020-ended-allowances.sql
BEGIN;
-- An allowance that an administrator ended stays ended if the clock of the database is set back.
-- Its "until" then equals its "since", so it is in force at no time. The column "ended" keeps the
-- end for the history. The end of a block needs no such column, because a block that applies again
-- opens nothing.

INSERT INTO schema_version (v) VALUES (20);

ALTER TABLE allowances ADD COLUMN ended timestamptz;
COMMENT ON COLUMN allowances.ended IS 'Time at which an administrator ended the allowance; null if "until" is its end.';
GRANT UPDATE (ended) ON allowances TO pop3authd;

-- The function of migration 19: an allowance stays as long as the history of its end.
CREATE OR REPLACE FUNCTION keep_history(keep_days integer, at_time timestamptz DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  today  date := (coalesce(at_time, now()) AT TIME ZONE 'UTC')::date;
  oldest date := today - greatest(keep_days, 1);
  parent text;
  child  text;
  day    date;
  since  timestamptz;
  till   timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(418565088363); -- Two programs must not make the same partition.
  FOREACH parent IN ARRAY ARRAY['login_event', 'usage_event'] LOOP
    FOR ahead IN -1 .. 3 LOOP
      day := today + ahead;
      child := parent || to_char(day, '"_"YYYYMMDD');
      since := day::timestamp AT TIME ZONE 'UTC';
      till := (day + 1)::timestamp AT TIME ZONE 'UTC';
      IF day >= oldest AND to_regclass(child) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
        EXECUTE format(
          'WITH moved AS (DELETE FROM %I WHERE at >= %L AND at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
          parent || '_default', since, till, child);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, since, till);
      END IF;
    END LOOP;
    FOR child IN
      SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = parent::regclass AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8) < to_char(oldest, 'YYYYMMDD')
    LOOP
      EXECUTE format('DROP TABLE %I', child);
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE at < %L', parent || '_default', oldest::timestamp AT TIME ZONE 'UTC');
  END LOOP;
  DELETE FROM gate_decisions WHERE minute < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM blocks WHERE until < oldest::timestamp AT TIME ZONE 'UTC';
  DELETE FROM allowances WHERE coalesce(ended, until) < oldest::timestamp AT TIME ZONE 'UTC';
END
$$;
COMMIT;

-- 000021-blocks-of-neighbours.sql
BEGIN;
-- The login of an address with several logins does not lend its name to mail while the login is
-- blocked.

INSERT INTO schema_version (v) VALUES (21);

CREATE OR REPLACE VIEW relay_neighbours AS
  SELECT n.network, n.login, n.last,
         (SELECT max(b.until) FROM blocks b WHERE b.login = n.login) AS blocked_until
  FROM neighbours n;
COMMIT;

-- 000022-device-messages.sql
BEGIN;
-- Messages of each device by hour, as the gates of all hosts count them. Programs of schema 21 do
-- not know the table. Their gates report minutes, which device_hours counts as before.

INSERT INTO schema_version (v) VALUES (22);

CREATE TABLE device_messages (
  device   text NOT NULL CHECK (length(device) <= 255),
  hour     timestamptz NOT NULL,
  messages bigint NOT NULL,
  PRIMARY KEY (device, hour)
);
COMMENT ON TABLE device_messages IS 'Messages that the front, the policy service and the query service accepted from a device in an hour of UTC.';

REVOKE ALL ON device_messages FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON device_messages TO pop3authd;
COMMIT;

-- 000023-granted-neighbours.sql
BEGIN;
-- The logins of an address that belong to its present grant. A block of an address removes its
-- grant, so logins before the block do not open the address again.

INSERT INTO schema_version (v) VALUES (23);

CREATE OR REPLACE VIEW relay_neighbours AS
  SELECT n.network, n.login, n.last,
         (SELECT max(b.until) FROM blocks b WHERE b.login = n.login) AS blocked_until,
         coalesce((SELECT n.last >= g.granted_first FROM grants g WHERE g.ip = n.network), false) AS granted
  FROM neighbours n;
COMMIT;
