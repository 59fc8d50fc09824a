/** The identity of a client before login, its rights by the site's rules, and its refusal. */
import type { AuthorizationOptions } from '../../pop3/authorization.ts'
import type { IpAddress, NetworkSet } from '../../wire/ip-address.ts'
import type { SessionId } from '../../wire/login-event.ts'

/** The identity of the other end of a connection, as far as it is trusted. */
export type Client = {
  readonly id: SessionId
  readonly ip: IpAddress
  readonly port: number | undefined
  readonly localIp: IpAddress | undefined
  readonly localPort: number | undefined
  readonly tls: boolean
  /** The proxy that named the client. */
  readonly proxyIp: IpAddress | undefined
}

/** The site's rules for a client before login. */
export type LoginRules = {
  readonly compat: 'none' | 'qmail'
  readonly requireTls: boolean
  readonly cleartextNets: NetworkSet
  readonly cleartextLogins: readonly string[]
  /** Seconds. */
  readonly loginDelay: number
  readonly tries: number
  /** Peers from which the SSL command is accepted; undefined: the feature is off. */
  readonly preambleTrust: NetworkSet | undefined
  /** A certificate for STLS is available. */
  readonly stls: boolean
}

/** The rights of this client by the rules. */
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

/** One reply for a client that is refused because every place is taken. */
export const TOO_MANY = '[SYS/TEMP] too many connections, try again later'
