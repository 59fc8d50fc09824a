/**
 * Settings that contradict each other. The program that needs them does not start, and `auth-relay
 * check` names them without a start.
 */
import { type Fault, UsageFault } from '../base/errors.ts'
import type { Settings } from './settings.ts'

export type Contradiction = Required<Fault>

/** @throws UsageFault naming every contradiction. */
export function refuse(found: readonly Contradiction[]): void {
  if (found.length > 0) throw new UsageFault(found)
}

/** The checkers of popup without the settings that they need. */
export function checkerContradictions({ popup }: Pick<Settings, 'popup'>): readonly Contradiction[] {
  const isReachable = popup.upstream !== undefined && popup.upstream.kind !== 'descriptor'
  if (popup.checker === 'upstream' && !isReachable)
    return [
      {
        setting: 'popup.upstream',
        fact: 'the checker "upstream" has no server',
        remedy: 'name the POP3 server behind popup, e.g. "127.0.0.1:10110"',
      },
    ]
  if (popup.checker !== 'sql') return []
  return (['sql_query', 'sql_dbname', 'sql_dbuser'] as const)
    .filter(name => popup[name] === '')
    .map(name => ({ setting: `popup.${name}`, fact: 'empty, and popup.checker is "sql"', remedy: `set ${name}` }))
}

/** Client certificates without authorities, and listeners that can answer no client. */
export function tlsContradictions({ sslwrap }: Pick<Settings, 'sslwrap'>): readonly Contradiction[] {
  const found: Contradiction[] = []
  if (sslwrap.client_certificate !== 'none' && sslwrap.client_ca === '')
    found.push({
      setting: 'sslwrap.client_certificate',
      fact: `"${sslwrap.client_certificate}" needs authorities`,
      remedy: 'set client_ca to the authorities that sign client certificates',
    })
  for (const [index, listener] of sslwrap.listener.entries()) {
    const at = `sslwrap.listener[${index}]`
    if (listener.tls === 'old' && sslwrap.old_tls_nets.networks.length === 0)
      found.push({
        setting: `${at}.tls`,
        fact: '"old" answers no client while sslwrap.old_tls_nets is empty',
        remedy: 'list the networks of the old devices in old_tls_nets',
      })
    if (listener.backend.kind === 'descriptor')
      found.push({
        setting: `${at}.backend`,
        fact: 'a descriptor cannot be connected to',
        remedy: 'write "ADDRESS:PORT" or "unix:/PATH"',
      })
    if (listener.preamble === 'ssl' && listener.protocol !== 'pop3')
      found.push({
        setting: `${at}.preamble`,
        fact: '"ssl" is a command of POP3',
        remedy: `use "proxy-v2" for ${listener.protocol} if the server behind reads it, or "none"`,
      })
  }
  return found
}
