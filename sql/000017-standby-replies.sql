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
