import type { UsageRow } from '../../grants/usage-report.ts'

/** What a login's habits say of the client behind it; the words stand in the report for people and for scripts. */
export type DeviceHint = 'sends-only' | 'polls' | 'never-relays' | 'apop' | 'no-tls' | 'roams'

/** Logins for one relayed mail: with so few, the mailbox is opened in order to send; with so many, to look for mail. */
const FEW = 2
const MANY = 5

/**
 * Scanners and scripts open the mailbox once for each mail that they send; mail programs open it
 * all day and send now and then. Old devices have
 * no TLS, or APOP alone. Somebody who roams has several addresses; a device has one.
 */
export function deviceHints(
  row: Pick<UsageRow, 'logins' | 'relays' | 'tlsLogins' | 'methods' | 'addresses'>,
): readonly DeviceHint[] {
  const { logins, relays, tlsLogins, methods, addresses } = row
  const hints: DeviceHint[] = []
  if (relays === 0) hints.push('never-relays')
  else if (logins <= relays * FEW) hints.push('sends-only')
  if (logins > Math.max(1, relays) * MANY) hints.push('polls')
  if (methods.split(',').includes('apop')) hints.push('apop')
  if (tlsLogins === 0) hints.push('no-tls')
  if (addresses > 1) hints.push('roams')
  return hints
}
