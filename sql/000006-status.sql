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
