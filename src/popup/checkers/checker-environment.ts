import { announcedClientChanges, connectionEnvironment, loginChanges } from '../../ucspi/connection.ts'
import { changeEnvironment, type Environment } from '../../ucspi/environment.ts'
import type { CheckRequest } from './checker.ts'

/** What belongs to the monitor and to nobody it starts. */
const NOT_INHERITED = /PASS|SECRET|^NODE_OPTIONS$|^NODE_COMPILE_CACHE$|^NOTIFY_SOCKET$|^WATCHDOG_|^LISTEN_|^AUTHRELAY_/

/** The environment that this program hands to checkers: its own, without secrets. */
export function inheritable(own: Environment): Environment {
  return Object.fromEntries(Object.entries(own).filter(([name]) => !NOT_INHERITED.test(name)))
}

/** UCSPI's variables for the client (spec/popup.md §6 and §7), on top of what every checker gets. */
export function checkerEnvironment(base: Environment, request: Omit<CheckRequest, 'applicant'>): Environment {
  const { ip, tls, proxyIp, remotePort, localIp, localPort, login, method } = request
  const ends = connectionEnvironment({
    remoteIp: ip,
    remotePort: remotePort ?? 0,
    localIp: localIp ?? ip,
    localPort: localPort ?? 110,
  })
  const connected = changeEnvironment(changeEnvironment(base, ends), {
    ...(localIp === undefined ? { TCPLOCALIP: undefined, TCP6LOCALIP: undefined } : {}),
    ...(remotePort === undefined ? { TCPREMOTEPORT: undefined, TCP6REMOTEPORT: undefined } : {}),
    AUTHRELAY_TLS: tls ? '1' : undefined,
  })
  const announced =
    proxyIp === undefined ? connected : changeEnvironment(connected, announcedClientChanges({ ip, tls, proxyIp }))
  // checkpassword's programs know the name as octets.
  return changeEnvironment(announced, { ...loginChanges('', method), AUTHRELAY_LOGIN: Buffer.from(login, 'latin1') })
}
