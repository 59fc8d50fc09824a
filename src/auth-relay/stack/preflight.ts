import { accessSync, constants, existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { UsageFault } from '../../base/exit-status.ts'
import { openListener } from '../../process/listener.ts'
import type { SocketAddress } from '../../process/socket-address.ts'
import { readSecretFile } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'
import { type PartsInUse, partsInUse } from './parts-in-use.ts'

/** An address that a program will listen on, and the setting that says so. */
export type PlannedListener = {
  readonly address: SocketAddress
  readonly setting: string
  /** The program that listens there. */
  readonly program: string
}

/** Where sslwrap listens when no setting says so. */
const DEFAULT_TLS: PlannedListener = {
  address: { type: 'tcp', host: '::', port: 995 },
  setting: 'sslwrap.listener',
  program: 'sslwrap',
}

/** Every TCP address that the settings make our programs listen on. */
export const plannedListeners = (settings: Settings): readonly PlannedListener[] =>
  plannedSockets(settings, partsInUse(settings)).filter(({ address }) => address.type === 'tcp')

/** Every address, Unix sockets included, on which the parts in use listen. */
export function plannedSockets(settings: Settings, parts: PartsInUse): readonly PlannedListener[] {
  const { popup, sslwrap, authd, wrap, statusPage } = settings
  const listed = Object.entries({ popup, sslwrap, authd, wrap, 'status-page': statusPage }).flatMap(
    ([program, values]) =>
      Object.entries(values).flatMap(([name, value]) =>
        name === 'listen' || name.endsWith('_listen') ? addressesIn(value, `${program}.${name}`, program) : [],
      ),
  )
  const inUse = (program: string): boolean => program !== 'sslwrap' || parts.sslwrap
  const announced = { socket: authd.socket, uses_socket: authd.uses_socket }
  return [
    ...listed.filter(({ program }) => inUse(program)),
    ...Object.entries(announced).flatMap(([name, path]): PlannedListener[] =>
      path === '' ? [] : [{ address: { type: 'unix', path }, setting: `authd.${name}`, program: 'authd' }],
    ),
    ...sslwrap.listener.map(({ listen }) => ({
      address: listen,
      setting: 'sslwrap.listener.listen',
      program: 'sslwrap',
    })),
    ...(parts.sslwrap && sslwrap.listener.length === 0 ? [DEFAULT_TLS] : []),
  ]
}

const addressesIn = (value: unknown, setting: string, program: string): PlannedListener[] =>
  [value]
    .flat()
    .filter(isSocketAddress)
    .map(address => ({ address, setting, program }))

const isSocketAddress = (value: unknown): value is SocketAddress =>
  typeof value === 'object' && value !== null && 'type' in value

/**
 * Finds out what would stop a program from starting before any is started: ports in use, keys and
 * secrets that cannot be read.
 * @throws the first fault, with what to do.
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
  if (popup.listen.length > 0 && popup.checker === 'passwd-file') {
    if (!existsSync(popup.passwd_file)) {
      throw new UsageFault(
        `popup.passwd_file: there is no ${popup.passwd_file}: make one with: auth-relay passwd LOGIN, or choose another popup.checker`,
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

/** A missing file is for the program itself to judge: sslwrap makes what is missing. */
function checkReadable(path: string, setting: string): void {
  if (!existsSync(path)) return
  try {
    accessSync(path, constants.R_OK)
  } catch (error) {
    throw new UsageFault(`${setting}: ${path} cannot be read: give it to the account that starts us, mode 0600`, error)
  }
}
