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
