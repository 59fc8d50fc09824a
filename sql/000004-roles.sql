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
