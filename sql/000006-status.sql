-- What the status page reads, with a role of its own that can read nothing else; and indexes by time for whoever looks at what
-- happened last.

INSERT INTO schema_version (v) VALUES (6);

-- The histories grow in the order of their times: a block range index costs next to nothing to keep and skips all but the end.
CREATE INDEX login_event_at ON login_event USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX relay_use_at ON relay_use USING brin (at) WITH (pages_per_range = 32, autosummarize = on);

-- The grants as the gate sees them, with what an administrator wants to know of each.
CREATE VIEW status_grants AS
  SELECT g.ip AS network, g.until, g.first_auth AS first, g.last_auth AS last, g.hits AS logins, g.daemon, g.username AS login, g.tls
  FROM grants g
  WHERE g.until > now() AND g.last_auth <= now() + interval '60 seconds'; -- A block takes the grants that it meets away: none need be looked for here.

-- A day of both histories. Of a relayed mail, "daemon" is the door that let it through.
CREATE VIEW status_events AS
  SELECT at, CASE WHEN refused IS NULL THEN 'grant' ELSE 'refused' END AS kind, ip, daemon, method, tls, username AS login, refused AS reason
  FROM login_event WHERE at > now() - interval '1 day'
  UNION ALL
  SELECT at, 'relay', ip, door, NULL, NULL, NULL, NULL
  FROM relay_use WHERE at > now() - interval '1 day';

-- How many decrees of the administrator are in force.
CREATE VIEW status_decrees AS
  SELECT (SELECT count(*) FROM allowances WHERE since <= now() AND until > now()) AS allowances,
         (SELECT count(*) FROM blocks WHERE since <= now() AND until > now()) AS blocks;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authstatus') THEN
    BEGIN
      CREATE ROLE authstatus LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT;
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL; -- made for another database at this moment
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
