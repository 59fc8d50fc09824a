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
