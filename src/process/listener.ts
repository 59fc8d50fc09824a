/** Listening sockets: of this process, of the service manager, and for worker processes. */

import { chmodSync, chownSync, closeSync, existsSync, lstatSync, renameSync, rmSync } from 'node:fs'
import { createConnection, createServer, type ListenOptions, type Server } from 'node:net'
import { dirname } from 'node:path'
import { errorCodeOf, isAccessDenied, messageOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { descriptorOf } from '../base/node-internals.ts'
import { accountWithUid } from '../libc/accounts.ts'
import { duplicateDescriptor } from '../libc/descriptors.ts'
import { socketName } from '../libc/sockets.ts'
import { parseIpAddress, readAddress } from '../wire/ip-address.ts'
import { formatSocketAddress, type SocketAddress } from './socket-address.ts'

/** The first descriptor that a service manager passes (sd_listen_fds(3)). */
const FIRST_DESCRIPTOR = 3
const MAX_DESCRIPTORS = 64

/**
 * Listening sockets from the service manager, by their bound address. A setting with the same
 * address gets its socket from here. The program then needs no right to bind, and connections
 * during a restart wait in the kernel's queue.
 */
let waiting: Map<string, number> | undefined

/**
 * Returns the socket that is bound to exactly this address. Undefined if the service manager passed
 * none, or if an earlier call returned it.
 */
export function takeActivatedSocket(address: SocketAddress): number | undefined {
  const found = activatedSockets()
  const key = keyOf(address)
  const descriptor = found.get(key)
  found.delete(key)
  return descriptor
}

/** Addresses of unused sockets: the unit of the service manager and the settings differ. */
export const unusedActivatedSockets = (): readonly string[] => [...activatedSockets().keys()]

function activatedSockets(): Map<string, number> {
  waiting ??= process.env['LISTEN_PID'] === String(process.pid) ? read(process.env['LISTEN_FDS']) : new Map()
  return waiting
}

function read(count = ''): Map<string, number> {
  const number = /^\d{1,2}$/.test(count) ? Math.min(Number(count), MAX_DESCRIPTORS) : 0
  const found = new Map<string, number>()
  for (let descriptor = FIRST_DESCRIPTOR; descriptor < FIRST_DESCRIPTOR + number; descriptor++) {
    const name = socketName(descriptor)
    if (name === undefined) continue
    const address: SocketAddress =
      name.family === 'unix'
        ? { kind: 'unix', path: name.path }
        : { kind: 'tcp', host: readAddress(name.octets), port: name.port }
    found.set(keyOf(address), descriptor)
  }
  return found
}

/** The text of an address, the same for all forms of an IP address. */
function keyOf(address: SocketAddress): string {
  const ip = address.kind === 'tcp' ? parseIpAddress(address.host) : undefined
  return formatSocketAddress(address.kind === 'tcp' && ip !== undefined ? { ...address, host: ip } : address)
}

/** Mode and owner of a Unix socket, which decide about the right to connect. */
export type UnixSocketAccess = { readonly mode: number; readonly uid?: number; readonly gid?: number }

/**
 * Makes the server listen and returns its address, with the port that the kernel chose for port 0.
 * A socket that the service manager passed for that address is used unchanged, with its owner and
 * mode. `setting` is the name in the message. @throws TemporaryFault if the address is in use,
 * UsageFault if it cannot be bound at all.
 */
export async function openListener(
  server: Server,
  address: SocketAddress,
  setting: string,
  access: UnixSocketAccess = { mode: 0o600 },
  options: Pick<ListenOptions, 'backlog' | 'reusePort'> = {},
): Promise<SocketAddress> {
  const activated = takeActivatedSocket(address)
  if (address.kind === 'unix' && activated === undefined) await removeStaleSocket(address.path, setting)
  const place: SocketAddress = activated === undefined ? address : { kind: 'descriptor', fd: activated }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    const listening = () => {
      server.removeListener('error', reject)
      resolve()
    }
    const common = { backlog: 4096, ...options }
    switch (place.kind) {
      case 'tcp':
        server.listen({ ...common, host: place.host, port: place.port }, listening)
        break
      case 'unix':
        server.listen({ ...common, path: place.path }, listening)
        break
      case 'descriptor':
        server.listen({ fd: place.fd }, common.backlog, listening)
        break
    }
  }).catch((error: unknown) => {
    throw explain(error, address, setting)
  })
  if (activated !== undefined) return address
  if (address.kind === 'unix') {
    chmodSync(address.path, access.mode)
    if (access.uid !== undefined || access.gid !== undefined) {
      try {
        chownSync(address.path, access.uid ?? -1, access.gid ?? -1)
      } catch (error) {
        const why = messageOf(error)
        const fact = `cannot give ${address.path} to its account and group: ${why}`
        throw new UsageFault({ setting, fact, remedy: 'start as root, or be a member of the group' }, error)
      }
    }
    return address
  }
  const bound = server.address()
  return bound === null || typeof bound === 'string' ? address : { kind: 'tcp', host: bound.address, port: bound.port }
}

/**
 * Removes the file of a Unix socket that a crash left behind, but only if the kernel reports that
 * no process listens there.
 * @throws TemporaryFault if a process listens. UsageFault if the file is not a socket, or if this
 * account cannot reach it.
 */
export async function removeStaleSocket(path: string, setting: string): Promise<void> {
  try {
    const status = lstatSync(path, { throwIfNoEntry: false })
    if (status === undefined) return
    if (!status.isSocket())
      throw new UsageFault({ fact: `${path} exists and is not a socket`, remedy: `rename it or change ${setting}` })
    if (await answers(path)) throw inUse(path, setting)
    rmSync(path, { force: true })
  } catch (error) {
    if (error instanceof UsageFault || error instanceof TemporaryFault) throw error
    const address: SocketAddress = { kind: 'unix', path }
    const remedy = isAccessDenied(error) ? remedyWithoutRight(address, setting) : `change ${setting}`
    throw new UsageFault({ setting, fact: `cannot use ${path}: ${messageOf(error)}`, remedy }, error)
  }
}

/** True if a process listens at the path. Rejects if this account may not connect. */
const answers = (path: string): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const probe = createConnection({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', error => {
      if (isAccessDenied(error)) reject(error)
      else resolve(!['ECONNREFUSED', 'ENOENT'].includes(errorCodeOf(error) ?? ''))
    })
  })

const inUse = (where: string, setting: string, cause?: unknown): TemporaryFault =>
  new TemporaryFault({ fact: `${where} is in use`, remedy: `stop the other server or change ${setting}` }, cause)

function explain(error: unknown, address: SocketAddress, setting: string): Error {
  const code = errorCodeOf(error)
  const where = formatSocketAddress(address)
  switch (code) {
    case 'EADDRINUSE':
      return inUse(where, setting, error)
    case 'EACCES':
      // The runtime reports EACCES for a Unix socket in a missing directory.
      if (address.kind === 'unix' && !existsSync(dirname(address.path))) {
        return new UsageFault({
          fact: `${setting}: the directory ${dirname(address.path)} does not exist`,
          remedy: `create it, or change ${setting}`,
        })
      }
      return new UsageFault(
        { fact: `no right to listen on ${where}`, remedy: remedyWithoutRight(address, setting) },
        error,
      )
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new UsageFault({ fact: `this host has no address ${where}`, remedy: `change ${setting}` }, error)
    default:
      return new TemporaryFault(
        { fact: `cannot listen on ${where}: ${messageOf(error)}`, remedy: `change ${setting}` },
        error,
      )
  }
}

/** A port needs a right that root gives; a directory needs a right that its owner gives. */
function remedyWithoutRight(address: SocketAddress, setting: string): string {
  if (address.kind !== 'unix') return `start as root, or change ${setting}`
  const account = accountWithUid(process.geteuid?.() ?? 0)?.name ?? `of uid ${process.geteuid?.()}`
  return `account ${account} may not write in ${dirname(address.path)}: give the directory to it, or choose its own directory in ${setting}`
}

/**
 * A listening socket for workers, which inherit the descriptor. This process never accepts from it.
 * Connections that come while no worker runs wait in the kernel's queue, so that a crash or an idle
 * end of a worker loses none.
 */
export type BoundSocket = {
  readonly descriptor: number
  /** Its address, with the port that the kernel chose for port 0. */
  readonly address: SocketAddress
  /** The service manager's socket: it existed before this process, and stays. */
  readonly isActivated: boolean
  /**
   * Closes the socket, and removes a Unix socket's path. Workers with the socket continue to
   * listen.
   */
  release(): void
}

/**
 * Binds and listens, or takes over the socket that the service manager opened for this address. A
 * Unix socket appears under its name only when it is ready and its owner and mode are set.
 * @throws TemporaryFault, UsageFault as openListener.
 */
export async function holdListener(
  address: SocketAddress,
  setting: string,
  access?: UnixSocketAccess,
  options: { readonly reusePort?: boolean } = {},
): Promise<BoundSocket> {
  const activated = takeActivatedSocket(address)
  if (activated !== undefined)
    return { descriptor: activated, address, isActivated: true, release: () => closeSync(activated) }
  const path = address.kind === 'unix' ? address.path : undefined
  // rename() would silently replace a live server's socket, so look for one first.
  if (path !== undefined) await removeStaleSocket(path, setting)
  const server = createServer()
  // The server of the runtime unlinks its path when it is closed, so bind it under another name.
  const temporary: SocketAddress = path === undefined ? address : { kind: 'unix', path: `${path}.new` }
  try {
    const bound = await openListener(server, temporary, setting, access, options)
    const descriptor = duplicateDescriptor(descriptorOf(server), 10)
    if (path !== undefined) rename(`${path}.new`, path, descriptor)
    return {
      descriptor,
      address: path === undefined ? bound : address,
      isActivated: false,
      release: () => {
        closeSync(descriptor)
        if (path !== undefined) rmSync(path, { force: true })
      },
    }
  } finally {
    // The server has accepted nothing, because the event loop has not polled since `listen`. After
    // an error it must not listen on, because the next attempt would find the name in use.
    server.close()
  }
}

/** Gives a bound socket its name; closes the descriptor if that fails. */
function rename(from: string, to: string, descriptor: number): void {
  try {
    renameSync(from, to)
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

/**
 * Like holdListener, for several workers. A TCP port gets a socket for each worker, so that the
 * kernel spreads the clients (SO_REUSEPORT); from one socket, the first worker that wakes would
 * accept a whole burst. Other addresses and passed sockets get one socket for all.
 */
export async function holdListeners(
  address: SocketAddress,
  count: number,
  setting: string,
): Promise<readonly BoundSocket[]> {
  const first = await holdListener(address, setting)
  if (count === 1 || address.kind !== 'tcp' || first.isActivated) return [first]
  // SO_REUSEPORT would also succeed beside another instance, so the port was first bound without
  // it.
  first.release()
  const held: BoundSocket[] = []
  for (let i = 0; i < count; i++) {
    held.push(await holdListener(first.address, setting, undefined, { reusePort: true }))
  }
  return held
}
