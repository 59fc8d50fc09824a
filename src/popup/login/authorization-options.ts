import type { AuthorizationOptions } from '../../pop3/authorization.ts'
import type { NetworkSet } from '../../wire/ip-address.ts'
import type { Client } from './client.ts'

/** The site's rules for what a client may do before login. */
export type LoginRules = {
  readonly compat: 'none' | 'qmail'
  readonly requireTls: boolean
  readonly cleartextNets: NetworkSet
  readonly cleartextLogins: readonly string[]
  /** Seconds. */
  readonly loginDelay: number
  readonly tries: number
  /** Peers from which the SSL command is taken; undefined: the feature is off. */
  readonly preambleTrust: NetworkSet | undefined
  /** A certificate for STLS is there. */
  readonly stls: boolean
}

/** What this client may do by the rules. */
export function authorizationOptions(rules: LoginRules, { ip, tls }: Client): AuthorizationOptions {
  const { cleartextLogins } = rules
  const isFree = tls || !rules.requireTls || rules.cleartextNets.has(ip)
  const some = (login: string): boolean => cleartextLogins.includes(login)
  const cleartext = isFree ? 'all' : cleartextLogins.length === 0 ? 'none' : some
  const mayLogIn = cleartext !== 'none'
  return {
    compat: rules.compat,
    capabilities: {
      user: mayLogIn,
      sasl: mayLogIn ? ['PLAIN', 'LOGIN'] : [],
      stls: rules.stls && !tls,
      loginDelay: rules.loginDelay,
      expire: 'NEVER',
      implementation: 'auth-relay',
    },
    cleartext,
    preamble: rules.preambleTrust?.has(ip) === true && !tls,
    tries: rules.tries,
  }
}
