import type { LoginMethod } from '../../wire/login-event.ts'
import type { Dialect } from '../dialect.ts'

const ADDRESS = '([0-9A-Fa-f:._]{2,45})'
const NAME = String.raw`([^\s:@]{1,155}@[^\s:@]{0,155})`
const LOGIN = new RegExp(
  String.raw`^vchkpw-(pop3s?|imaps?|\d{1,5}): ` +
    String.raw`(?:\((PLAIN|APOP|CRAM-MD5)\) login success ${NAME}|system password login success ([^\s:]{1,155})):${ADDRESS}$`,
)
const OLD_LOGIN = new RegExp(`^vchkpw: login success ${NAME}:${ADDRESS}$`)
const OLDEST_LOGIN = new RegExp(String.raw`^vchkpw: login \[([^\s:@[\]]{1,155}@[^\s:@[\]]{0,155})\] from ${ADDRESS}$`)

const METHODS: ReadonlyMap<string, LoginMethod> = new Map([
  ['APOP', 'apop'],
  ['CRAM-MD5', 'sasl'],
])
/** Ports of services that never open a relay here: SMTP in its three forms. */
const SMTP_PORTS = new Set(['25', '465', '587'])
const IMAP_PORTS = new Set(['143', '993'])

/**
 * vpopmail's vchkpw (spec/syslog.md §3); it logs successes only when built with `--enable-logging=y` or `v`.
 * The classes smtp, submission and webmail are no logins.
 */
export const vchkpw: Dialect = {
  name: 'vchkpw',
  setting: 'check_daemon_vchkpw',
  tags: ['vpopmail'],
  doc: 'vpopmail vchkpw, built with --enable-logging=y or v',
  longestLogin: 155,
  read(message) {
    const [match, service = '', mechanism = '', name, systemName, address = ''] = LOGIN.exec(message) ?? []
    if (match !== undefined) {
      if (SMTP_PORTS.has(service)) return undefined
      return {
        kind: 'login',
        address: unfold(address),
        login: name ?? systemName ?? '',
        imap: service.startsWith('imap') || IMAP_PORTS.has(service),
        tls: service.endsWith('s'),
        method: METHODS.get(mechanism) ?? 'pass',
      }
    }
    const [oldMatch, oldName = '', oldAddress = ''] = OLD_LOGIN.exec(message) ?? OLDEST_LOGIN.exec(message) ?? []
    return oldMatch === undefined ? undefined : { kind: 'login', address: unfold(oldAddress), login: oldName }
  },
}

/** vchkpw writes `_` for every `:` of a short IPv6 address. */
const unfold = (address: string): string => address.replaceAll('_', ':')
