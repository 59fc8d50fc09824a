/**
 * Environments of programs: as inherited, and the variables with which UCSPI describes a
 * connection.
 */
import { readFileSync } from 'node:fs'
import { familyOf, type IpAddress, parseIpAddress } from '../wire/ip-address.ts'

/**
 * Variables of a program. Values may be octets, because UCSPI's HOST and INFO come from the network
 * unchecked (tcp-environ(5)).
 */
export type Environment = Readonly<Record<string, string | Uint8Array>>

/** Changes to an environment. Undefined removes the variable. */
export type EnvironmentChanges = Readonly<Record<string, string | Uint8Array | undefined>>

/** Formats `NAME=value` for posix_spawn and execve. */
export function formatEnvironment(environment: Environment): (string | Uint8Array)[] {
  return Object.entries(environment).map(([name, value]) =>
    typeof value === 'string' ? `${name}=${value}` : Buffer.concat([Buffer.from(`${name}=`), value]),
  )
}

/** Returns the environment with the changes applied. */
export function changeEnvironment(environment: Environment, changes: EnvironmentChanges): Environment {
  const changed: Record<string, string | Uint8Array> = { ...environment }
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) delete changed[name]
    else changed[name] = value
  }
  return changed
}

/**
 * Returns this process's environment unchanged, where process.env would replace octets that are not
 * UTF-8. The first of two variables of one name counts, as in getenv(3). The environment is read
 * once, because a process that has become undumpable may not read it again.
 */
export function ownEnvironment(): Environment {
  own ??= parseEnvironment(readFileSync('/proc/self/environ'))
  return own
}
let own: Environment | undefined

/** Parses the content of /proc/PID/environ. Values that are not UTF-8 stay octets. */
export function parseEnvironment(block: Uint8Array): Environment {
  const environment: Record<string, string | Uint8Array> = {}
  for (let at = 0; at < block.length; ) {
    const nul = block.indexOf(0, at)
    const end = nul < 0 ? block.length : nul
    const equals = block.indexOf(0x3d, at)
    if (equals > at && equals < end) {
      const name = Buffer.from(block.subarray(at, equals)).toString('latin1')
      if (!Object.hasOwn(environment, name)) environment[name] = textOrBytes(block.subarray(equals + 1, end))
    }
    at = end + 1
  }
  return environment
}

function textOrBytes(bytes: Uint8Array): string | Uint8Array {
  const text = Buffer.from(bytes).toString()
  return Buffer.from(text).equals(bytes) ? text : bytes
}

/**
 * The two ends of a TCP connection, with the names of UCSPI (tcp-environ(5)). Undefined: unknown.
 */
export type UcspiConnection = {
  readonly localIp: IpAddress
  readonly localPort: number
  readonly localHost?: string | undefined
  readonly remoteIp: IpAddress
  readonly remotePort: number
  readonly remoteHost?: string | undefined
  readonly remoteInfo?: string | undefined
}

/**
 * Returns the client's address, or undefined if it is missing or not a numeric address.
 * `::ffff:192.0.2.7`, as couriertcpd and others write it, is 192.0.2.7. TCP6REMOTEIP (ucspi-tcp6)
 * counts only if TCPREMOTEIP is missing.
 */
export function remoteIpOf(environment: Environment): IpAddress | undefined {
  const text = environment['TCPREMOTEIP'] ?? environment['TCP6REMOTEIP']
  return typeof text === 'string' ? parseIpAddress(text) : undefined
}

/** Returns the address that the client connected to, or undefined. */
export function localIpOf(environment: Environment): IpAddress | undefined {
  const text = environment['TCPLOCALIP'] ?? environment['TCP6LOCALIP']
  return typeof text === 'string' ? parseIpAddress(text) : undefined
}

/** Returns a port number of the environment, or undefined. */
export function portOf(environment: Environment, name: 'TCPREMOTEPORT' | 'TCPLOCALPORT'): number | undefined {
  const text = environment[name]
  return typeof text === 'string' && /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined
}

/**
 * Returns all variables that a UCSPI server sets for a connection, and undefined for variables that
 * must not be inherited. For IPv6, PROTO is TCP6 and the TCP6 names accompany the TCP names, as in
 * ucspi-tcp6.
 */
export function connectionEnvironment(connection: UcspiConnection): EnvironmentChanges {
  const six = familyOf(connection.remoteIp) === 6
  const ends = {
    LOCALIP: connection.localIp,
    LOCALPORT: String(connection.localPort),
    LOCALHOST: connection.localHost?.toLowerCase(),
    REMOTEIP: connection.remoteIp,
    REMOTEPORT: String(connection.remotePort),
    REMOTEHOST: connection.remoteHost?.toLowerCase(),
    REMOTEINFO: connection.remoteInfo,
  }
  const changes: Record<string, string | undefined> = { PROTO: six ? 'TCP6' : 'TCP' }
  for (const [name, value] of Object.entries(ends)) {
    changes[`TCP${name}`] = value
    changes[`TCP6${name}`] = six ? value : undefined
  }
  return changes
}

/** The variables that connectionEnvironment sets or removes. */
export const CONNECTION_VARIABLES: readonly string[] = [
  'PROTO',
  ...['TCP', 'TCP6'].flatMap(proto =>
    ['LOCALIP', 'LOCALPORT', 'LOCALHOST', 'REMOTEIP', 'REMOTEPORT', 'REMOTEHOST', 'REMOTEINFO'].map(
      name => `${proto}${name}`,
    ),
  ),
]

/**
 * Returns connectionEnvironment as `NAME=value`, for an environment without CONNECTION_VARIABLES.
 * The gate calls this for each connection, and objects with computed names would cost more than all
 * its other work.
 */
export function connectionLines(connection: UcspiConnection): string[] {
  const { localIp, localPort, localHost, remoteIp, remotePort, remoteHost, remoteInfo } = connection
  const six = familyOf(remoteIp) === 6
  const lines = [
    six ? 'PROTO=TCP6' : 'PROTO=TCP',
    `TCPLOCALIP=${localIp}`,
    `TCPLOCALPORT=${localPort}`,
    `TCPREMOTEIP=${remoteIp}`,
    `TCPREMOTEPORT=${remotePort}`,
  ]
  if (localHost !== undefined) lines.push(`TCPLOCALHOST=${localHost.toLowerCase()}`)
  if (remoteHost !== undefined) lines.push(`TCPREMOTEHOST=${remoteHost.toLowerCase()}`)
  if (remoteInfo !== undefined) lines.push(`TCPREMOTEINFO=${remoteInfo}`)
  return six ? lines.concat(lines.slice(1).map(line => `TCP6${line.slice('TCP'.length)}`)) : lines
}

/** A client that a trusted proxy has announced (spec/popup.md §6). */
export type AnnouncedClient = {
  readonly ip: IpAddress
  readonly tls: boolean
  /** The proxy's own address, which was the peer's address until the announcement. */
  readonly proxyIp: IpAddress | undefined
  /**
   * The port that the client reached at the proxy, if the settings name it. Otherwise TCPLOCALPORT
   * stays.
   */
  readonly localPort?: number | undefined
}

/**
 * Returns the changes for every child after a proxy has announced its client. The proxy's name,
 * port and ident do not describe the client.
 */
export function announcedClientChanges(client: AnnouncedClient): EnvironmentChanges {
  return {
    TCPREMOTEIP: client.ip,
    TCPREMOTEHOST: undefined,
    TCPREMOTEINFO: undefined,
    TCPREMOTEPORT: undefined,
    TCP6REMOTEIP: undefined,
    TCP6REMOTEHOST: undefined,
    TCP6REMOTEINFO: undefined,
    TCP6REMOTEPORT: undefined,
    AUTHRELAY_TLS: client.tls ? '1' : undefined,
    AUTHRELAY_PROXYIP: client.proxyIp,
    ...(client.localPort === undefined ? {} : { TCPLOCALPORT: String(client.localPort) }),
  }
}

/**
 * Returns the variables that describe the login to the checker and the program behind it: the name
 * and the method, without the password (spec/popup.md §7). `login` has one character per octet.
 */
export function loginChanges(login: string, method: string): EnvironmentChanges {
  return { AUTHRELAY_LOGIN: Buffer.from(login, 'latin1'), AUTHRELAY_METHOD: method }
}
