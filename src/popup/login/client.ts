import type { AuthorizationOptions } from '../../pop3/authorization.ts'
import type { IpAddress, NetworkSet } from '../../wire/ip-address.ts'
import type { SessionId } from '../../wire/login-event.ts'

/** Who a client is before login, and what the site's rules let it do. */

/** Who is at the other end of a connection, as far as we believe it. */
export type Client = {
  readonly id: SessionId
  readonly ip: IpAddress
  readonly port: number | undefined
  readonly localIp: IpAddress | undefined
  readonly localPort: number | undefined
  readonly tls: boolean
  /** The proxy that spoke for the client. */
  readonly proxyIp: IpAddress | undefined
}

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
