import { BARE, duration, flag, integer, networks } from './rows.ts'
import { defineSection } from './section.ts'

export const GRANTS = defineSection('grants', 'Who is granted, and for how long.', {
  exp_time: duration(
    's',
    1800,
    1,
    86_400,
    'Time that an address may relay after its last login. Below one minute is for tests only.',
    BARE,
  ),
  alrm_time: duration(
    's',
    60,
    1,
    3600,
    'Time between two sweeps of expired grants. Expiry itself is decided at each lookup.',
    BARE,
  ),
  max_lifetime: duration(
    's',
    0,
    0,
    31_536_000,
    'Time after which even a grant that logins renew ends. 0 means never.',
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
  history_days: duration('d', 90, 1, 3650, 'Time for which logins, uses of grants and decisions of the gate are kept.'),
})
