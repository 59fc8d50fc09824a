/** Dialects of qmail: the login line of auth-relay, and vpopmail. */

import type { LoginMethod } from '../../wire/login-event.ts'
import type { Dialect } from '../dialect.ts'
import { parseLoginLine } from '../login-line.ts'
import { readParts } from '../syslog-line.ts'

/** The login line of auth-relay, and of the original patched qmail-pop3d (spec/syslog.md §6). */
export const qmailPop3d: Dialect = {
  name: 'qmail-pop3d',
  setting: 'check_daemon_hacked_qmailpop3d',
  tags: ['qmail-pop3d'],
  doc: "this package's own popup and pop3d, through syslog",
  longestLogin: 255,
  read(message) {
    const line = parseLoginLine(message)
    if (line === undefined) return undefined
    const { address, user: login, cut, tls, method } = line
    return { kind: 'login', address, login, cut, tls, method }
  },
}

const VCHKPW_ADDRESS = '([0-9A-Fa-f:._]{2,45})'
const VCHKPW_NAME = String.raw`([^\s:@]{1,155}@[^\s:@]{0,155})`
const VCHKPW_LOGIN = new RegExp(
  String.raw`^vchkpw-(pop3s?|imaps?|\d{1,5}): ` +
    String.raw`(?:\((PLAIN|APOP|CRAM-MD5)\) login success ${VCHKPW_NAME}|system password login success ([^\s:]{1,155})):${VCHKPW_ADDRESS}$`,
)
const VCHKPW_OLD_LOGIN = new RegExp(`^vchkpw: login success ${VCHKPW_NAME}:${VCHKPW_ADDRESS}$`)
const VCHKPW_OLDEST_LOGIN = new RegExp(
  String.raw`^vchkpw: login \[([^\s:@[\]]{1,155}@[^\s:@[\]]{0,155})\] from ${VCHKPW_ADDRESS}$`,
)

const VCHKPW_METHODS: ReadonlyMap<string, LoginMethod> = new Map([
  ['APOP', 'apop'],
  ['CRAM-MD5', 'sasl'],
])
/** Ports of SMTP. A login by SMTP is not a POP3 login. */
const SMTP_PORTS = new Set(['25', '465', '587'])
const IMAP_PORTS = new Set(['143', '993'])

/**
 * vpopmail's vchkpw (spec/syslog.md §3). It logs successes only if it was built with
 * `--enable-logging=y` or `v`. The classes smtp, submission and webmail are no POP3 logins.
 */
export const vchkpw: Dialect = {
  name: 'vchkpw',
  setting: 'check_daemon_vchkpw',
  tags: ['vpopmail'],
  doc: 'vpopmail vchkpw, built with --enable-logging=y or v',
  longestLogin: 155,
  read(message) {
    const parts = readParts(VCHKPW_LOGIN, message)
    if (parts !== undefined) {
      const [, service, mechanism, name, systemName, address] = parts
      if (SMTP_PORTS.has(service)) return undefined
      return {
        kind: 'login',
        address: unfold(address),
        // One of both is there.
        login: name + systemName,
        imap: service.startsWith('imap') || IMAP_PORTS.has(service),
        tls: service.endsWith('s'),
        method: VCHKPW_METHODS.get(mechanism) ?? 'pass',
      }
    }
    const old = readParts(VCHKPW_OLD_LOGIN, message) ?? readParts(VCHKPW_OLDEST_LOGIN, message)
    if (old === undefined) return undefined
    const [, login, address] = old
    return { kind: 'login', address: unfold(address), login }
  },
}

/** vchkpw writes `_` for every `:` of a short IPv6 address. */
const unfold = (address: string): string => address.replaceAll('_', ':')
