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
