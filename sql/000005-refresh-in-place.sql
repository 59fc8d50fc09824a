-- A login from an address that has a grant is the common case. With "until" in no index and room left in each page,
-- PostgreSQL replaces the row where it stands (a heap-only update) and touches no index at all.

INSERT INTO schema_version (v) VALUES (5);

-- The sweep, once a minute, reads the table instead; every lookup is by address.
DROP INDEX grants_until;
ALTER TABLE grants SET (fillfactor = 70);
