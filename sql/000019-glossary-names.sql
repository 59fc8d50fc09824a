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
