import { BARE, defineSection, duration, flag, networks, numberChoice, translationPrefixes } from './rows.ts'

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
  ipv6_prefix: numberChoice(
    [64, 128],
    128,
    '128 grants the address alone, 64 its whole network (privacy addresses change). Addresses that embed an IPv4 address (NAT64, SIIT, Teredo, 6to4) are granted alone in any case.',
    BARE,
  ),
  nat64_prefixes: translationPrefixes(
    'IPv6 prefixes under which translators of this site show IPv4 clients (RFC 6052), e.g. ["2001:db8:64::/96"]. Each of these addresses counts as its IPv4 client. 64:ff9b::/96 is known without being listed.',
    BARE,
  ),
  never_grant: networks(
    [],
    'Networks that are never granted: gateways, webmail hosts, proxies of other programs. Peers in popup.ssl_hack_trust, popup.proxy_trust and wrap.proxy_trust are never granted in any case.',
    { ...BARE, formerNames: ['never_nets'] },
  ),
  deny_private: flag(false, 'Never grant private and carrier-grade NAT addresses.', BARE),
  grant_loopback: flag(
    false,
    'UNSAFE, for demonstration and tests: grant loopback addresses too, apart from those in never_grant.',
    BARE,
  ),
  store_user: flag(true, 'Keep the login name with the grant.', BARE),
  history_days: duration('d', 90, 1, 3650, 'Time for which logins, uses of grants and decisions of the gate are kept.'),
})
