-- Two roles besides the owner of the tables: pop3authd writes grants, authwrap can only ask. Both are made without a
-- password: nobody can use them over a password login until the administrator sets one.

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
        WHEN duplicate_object OR unique_violation THEN NULL; -- made for another database at this moment
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
-- Ending a block or an allowance is all that may be changed of it.
GRANT UPDATE (until) ON blocks, allowances TO pop3authd;
GRANT SELECT ON relay TO pop3authd;
GRANT EXECUTE ON FUNCTION keep_history(integer, timestamptz) TO pop3authd;
