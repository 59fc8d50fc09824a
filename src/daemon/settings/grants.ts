import { BARE, flag, integer, networks } from './rows.ts'
import { defineSection } from './section.ts'

export const GRANTS = defineSection('grants', 'Who is granted, and for how long.', {
  exp_time: integer(
    1800,
    1,
    86_400,
    'Seconds an address may relay after its last login; below 60 only for tests.',
    BARE,
  ),
  alrm_time: integer(
    60,
    1,
    3600,
    'Seconds between two sweeps of expired grants. Expiry itself is decided at lookup.',
    BARE,
  ),
  max_lifetime: integer(
    0,
    0,
    31_536_000,
    'Seconds after which even a grant that is refreshed ends; 0 means never.',
    BARE,
  ),
  ipv6_prefix: integer(
    128,
    64,
    128,
    '128 grants the address alone, 64 its whole network (privacy addresses change).',
    BARE,
  ),
  never_nets: networks([], 'Networks that are never granted: proxies, gateways, webmail hosts.', BARE),
  deny_private: flag(false, 'Never grant private and carrier-grade NAT addresses.', BARE),
  grant_loopback: flag(false, 'UNSAFE, for demonstration and tests: grant loopback addresses too.', BARE),
  store_user: flag(true, 'Keep the login name with the grant.', BARE),
  history_days: integer(90, 1, 3650, 'Days for which logins, uses of grants and decisions of the gate are remembered.'),
})
