/**
 * Programs that the settings make the stack run, their addresses, and whether the host permits
 * them.
 */

import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { UsageFault } from '../../base/errors.ts'
import { openListener } from '../../process/listener.ts'
import type { SocketAddress } from '../../process/socket-address.ts'
import { readSecretFile } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'

/** The parts that the settings use. */
export type PartsInUse = {
  readonly popup: boolean
  readonly sslwrap: boolean
  /** authd has a login source: popup, or a log. */
  readonly authd: boolean
  readonly gate: boolean
  readonly statusPage: boolean
  /** The settings name a recipient of alarms. */
  readonly alerts: boolean
}

/**
 * The parts that the settings use. Without `[[sslwrap.listener]]` sslwrap listens on *:995 before
 * popup, unless popup does the TLS handshake.
 */
export function partsInUse({ popup, sslwrap, authd, wrap, statusPage, alerts }: Settings): PartsInUse {
  const readsLogs =
    authd.syslog_fifo !== '' || authd.syslog_listen.length > 0 || authd.follow_files.length > 0 || authd.journal
  const services = [wrap.listen, wrap.policy_listen, wrap.socketmap_listen, wrap.query_listen]
  return {
    popup: servesPop3(popup),
    sslwrap: (servesPop3(popup) && popup.tls_listen.length === 0) || sslwrap.listener.length > 0,
    authd: servesPop3(popup) || readsLogs,
    gate: services.some(addresses => addresses.length > 0) || wrap.tcprules_cdb !== '',
    statusPage: statusPage.listen !== undefined,
    alerts: alerts.mail_to.length > 0 || alerts.webhook_file !== '' || alerts.program.length > 0,
  }
}

/** True if popup listens on any address. */
export const servesPop3 = ({ listen, proxy_listen, tls_listen }: Settings['popup']): boolean =>
  [listen, proxy_listen, tls_listen].some(addresses => addresses.length > 0)

/**
 * The same on this host: sslwrap, which no setting switches off, is not in use where the
 * administrator has enabled other units of the package and left its unit out.
 */
export function partsInUseHere(settings: Settings, isEnabled = enabledUnit): PartsInUse {
  const parts = partsInUse(settings)
  if (!parts.sslwrap || settings.sslwrap.listener.length > 0) return parts
  const leftOut =
    isEnabled('auth-relay-sslwrap.service') === false &&
    ['authd', 'popup', 'wrap'].some(name => isEnabled(`auth-relay-${name}.service`) === true)
  return leftOut ? { ...parts, sslwrap: false } : parts
}

/**
 * True if systemd starts the unit at boot; undefined: the unit is missing, or systemd does not run.
 */
function enabledUnit(unit: string): boolean | undefined {
  const { stdout } = spawnSync('systemctl', ['is-enabled', unit], { encoding: 'utf8', timeout: 5000 })
  const word = stdout?.trim()
  return word === 'enabled' ? true : word === 'disabled' ? false : undefined
}

/** An address that a program will listen on, and its setting. */
export type PlannedSocket = {
  readonly address: SocketAddress
  readonly setting: string
  /** The program that listens there. */
  readonly program: string
}

/** The default address of sslwrap. */
const DEFAULT_TLS: PlannedSocket = {
  address: { kind: 'tcp', host: '::', port: 995 },
  setting: 'sslwrap.listener',
  program: 'sslwrap',
}

/** Every TCP address that the settings make our programs listen on. */
export const plannedListeners = (settings: Settings): readonly PlannedSocket[] =>
  plannedSockets(settings, partsInUse(settings)).filter(({ address }) => address.kind === 'tcp')

/** Every address, Unix sockets included, on which the parts in use listen. */
export function plannedSockets(settings: Settings, parts: PartsInUse): readonly PlannedSocket[] {
  const { popup, sslwrap, authd, wrap, statusPage } = settings
  const listed = Object.entries({ popup, sslwrap, authd, wrap, 'status-page': statusPage }).flatMap(
    ([program, values]) =>
      Object.entries(values).flatMap(([name, value]) =>
        name === 'listen' || name.endsWith('_listen') ? addressesIn(value, `${program}.${name}`, program) : [],
      ),
  )
  const inUse = (program: string): boolean => program !== 'sslwrap' || parts.sslwrap
  const announced = { socket: authd.socket, usage_socket: authd.usage_socket }
  return [
    ...listed.filter(({ program }) => inUse(program)),
    ...Object.entries(announced).flatMap(([name, path]): PlannedSocket[] =>
      path === '' ? [] : [{ address: { kind: 'unix', path }, setting: `authd.${name}`, program: 'authd' }],
    ),
    ...sslwrap.listener.map(({ listen }) => ({
      address: listen,
      setting: 'sslwrap.listener.listen',
      program: 'sslwrap',
    })),
    ...(parts.sslwrap && sslwrap.listener.length === 0 ? [DEFAULT_TLS] : []),
  ]
}

const addressesIn = (value: unknown, setting: string, program: string): PlannedSocket[] =>
  [value]
    .flat()
    .filter(isSocketAddress)
    .map(address => ({ address, setting, program }))

const isSocketAddress = (value: unknown): value is SocketAddress =>
  typeof value === 'object' &&
  value !== null &&
  'kind' in value &&
  (value.kind === 'tcp' || value.kind === 'unix' || value.kind === 'descriptor')

/**
 * Finds the faults that would prevent the start of a program before any program is started: ports
 * in use, keys and secrets that cannot be read. @throws the first fault, with the remedy.
 */
export async function checkBeforeStart(settings: Settings): Promise<void> {
  const { popup, sslwrap } = settings
  if (sslwrap.listener.length > 0) {
    checkReadable(sslwrap.cert, 'sslwrap.cert')
    checkReadable(sslwrap.key, 'sslwrap.key')
    if (sslwrap.listener.some(({ preamble }) => preamble === 'ssl')) readSecretFile(popup.ssl_hack_pass)
  }
  if (popup.stls || popup.tls_listen.length > 0) {
    checkReadable(popup.stls_cert, 'popup.stls_cert')
    checkReadable(popup.stls_key, 'popup.stls_key')
  }
  if (servesPop3(popup) && popup.checker === 'passwd-file') {
    if (!existsSync(popup.passwd_file)) {
      throw new UsageFault(
        `popup.passwd_file: ${popup.passwd_file} does not exist: create it with: auth-relay passwd LOGIN, or choose another popup.checker`,
      )
    }
    checkReadable(popup.passwd_file, 'popup.passwd_file')
  }
  for (const { address, setting } of plannedListeners(settings)) {
    const server = createServer()
    await openListener(server, address, setting)
    await new Promise(resolve => server.close(resolve))
  }
}

/** The program reports a missing file: sslwrap creates missing certificates. */
function checkReadable(path: string, setting: string): void {
  if (!existsSync(path)) return
  try {
    accessSync(path, constants.R_OK)
  } catch (error) {
    throw new UsageFault(
      `${setting}: ${path} cannot be read: give it to the account that starts auth-relay, mode 0600`,
      error,
    )
  }
}
