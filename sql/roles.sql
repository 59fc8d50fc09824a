-- Roles and their rights as they are after all migrations. auth-relay migrate runs this file last,
-- because a dump contains no roles: a restored database has the tables, but neither the roles nor
-- their rights. Running the file again changes nothing. A test compares its result with that of the
-- migrations.

DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['pop3authd', 'authwrap', 'authstatus'] LOOP
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
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO pop3authd, authwrap, authstatus', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO pop3authd, authwrap, authstatus;

GRANT SELECT ON schema_version TO pop3authd, authwrap, authstatus;
GRANT SELECT ON relay_gate, relay_blocks, relay_allowances, relay_clients, relay_ungrantable, relay_devices, relay_neighbours TO pop3authd, authwrap;
GRANT EXECUTE ON FUNCTION may_relay(text) TO pop3authd, authwrap;
GRANT EXECUTE ON FUNCTION standby_replies() TO pop3authd, authwrap;

GRANT SELECT, INSERT, UPDATE, DELETE ON grants, ungrantable, devices, device_logins, neighbours, alarm, device_hours TO pop3authd;
GRANT SELECT, INSERT, UPDATE, DELETE ON device_messages TO pop3authd;
GRANT SELECT, INSERT ON blocks, allowances, login_event, usage_event TO pop3authd;
GRANT UPDATE (until) ON blocks TO pop3authd;
GRANT UPDATE (until, ended) ON allowances TO pop3authd;
GRANT SELECT, INSERT, UPDATE ON gate_decisions, gate_refusals TO pop3authd;
GRANT SELECT ON relay TO pop3authd;
GRANT EXECUTE ON FUNCTION keep_history(integer, timestamptz) TO pop3authd;

GRANT SELECT ON status_grants, status_events, status_totals, status_gate_decisions, status_alarms, status_devices TO authstatus;

-- The former names, for programs before schema 19.
GRANT SELECT, INSERT ON relay_use TO pop3authd;
GRANT SELECT, INSERT, UPDATE ON gate_tally, gate_refused TO pop3authd;
GRANT SELECT, INSERT, UPDATE, DELETE ON alarms TO pop3authd;
GRANT SELECT ON status_decrees, status_gate TO authstatus;
