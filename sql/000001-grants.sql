-- Addresses that may relay: grants by login, allowances and blocks by the administrator. All times
-- are those of the database (timestamptz). "until" is exclusive: at this time the row has ended.

CREATE TABLE schema_version (
  v       integer PRIMARY KEY,
  applied timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_version IS 'One row for each migration. A program with fewer migrations refuses to run.';
INSERT INTO schema_version (v) VALUES (1);

-- One row for each address, or for each /64 network of IPv6 if ipv6_prefix is 64.
CREATE TABLE grants (
  ip            inet PRIMARY KEY
                CHECK ((family(ip) = 4 AND masklen(ip) = 32) OR (family(ip) = 6 AND masklen(ip) IN (64, 128))),
  until         timestamptz NOT NULL,
  last_auth     timestamptz NOT NULL DEFAULT now(),
  first_auth    timestamptz NOT NULL DEFAULT now(),
  granted_first timestamptz NOT NULL DEFAULT now(),
  hits          bigint NOT NULL DEFAULT 1,
  daemon        text NOT NULL CHECK (length(daemon) <= 32),
  username      text CHECK (length(username) <= 255),
  tls           boolean
);
COMMENT ON COLUMN grants.until IS 'The address may relay before this moment.';
COMMENT ON COLUMN grants.last_auth IS 'Last POP3 login. More than 60 s in the future (the clock was set back): the row is not valid.';
COMMENT ON COLUMN grants.granted_first IS 'First login of the unbroken series of grants that max_lifetime limits.';
COMMENT ON COLUMN grants.username IS 'Login name of the last login; null if store_user is off.';
CREATE INDEX grants_until ON grants (until);
-- For relay_clients, because Postfix queries with the text of an address.
CREATE INDEX grants_address ON grants (host(ip));

-- Addresses, networks and logins that must not relay. The end of a block sets "until". The row
-- stays as long as the history.
CREATE TABLE blocks (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  net    cidr,
  login  text CHECK (length(login) <= 255 AND login = lower(login)),
  since  timestamptz NOT NULL DEFAULT now(),
  until  timestamptz NOT NULL DEFAULT 'infinity',
  reason text NOT NULL CHECK (length(reason) <= 500),
  owner  text NOT NULL CHECK (length(owner) <= 255),
  CHECK (num_nonnulls(net, login) = 1)
);
CREATE INDEX blocks_net ON blocks USING gist (net inet_ops) WHERE net IS NOT NULL;
CREATE INDEX blocks_login ON blocks (login) WHERE login IS NOT NULL;

-- Networks that may relay without a login. A block overrides an allowance.
CREATE TABLE allowances (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  net    cidr NOT NULL,
  since  timestamptz NOT NULL DEFAULT now(),
  until  timestamptz NOT NULL DEFAULT 'infinity',
  reason text NOT NULL CHECK (length(reason) <= 500),
  owner  text NOT NULL CHECK (length(owner) <= 255)
);
CREATE INDEX allowances_net ON allowances USING gist (net inet_ops);
