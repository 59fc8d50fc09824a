import { chmodSync, chownSync, existsSync, lstatSync, unlinkSync } from 'node:fs'
import { createConnection, type ListenOptions, type Server } from 'node:net'
import { dirname } from 'node:path'
import { errorCodeOf, messageOf } from '../base/errors.ts'
import { TemporaryFault, UsageFault } from '../base/exit-status.ts'
import { accountWithUid } from '../libc/accounts.ts'
import { takeActivatedSocket } from './socket-activation.ts'
import { formatSocketAddress, type SocketAddress } from './socket-address.ts'

/** Mode and owner of a Unix socket: who may connect. */
export type UnixSocketAccess = { readonly mode: number; readonly uid?: number; readonly gid?: number }

/**
 * Makes the server listen and says where it does (with the port that the kernel chose for port 0).
 * A socket that the service manager
 * handed over for that address is taken as it is, with the owner and mode that it has.
 * `setting` is the name an administrator knows, for the message.
 * @throws TemporaryFault if the address is in use, UsageFault if it cannot be had at all.
 */
export async function openListener(
  server: Server,
  address: SocketAddress,
  setting: string,
  access: UnixSocketAccess = { mode: 0o600 },
  options: Pick<ListenOptions, 'backlog' | 'reusePort'> = {},
): Promise<SocketAddress> {
  const handed = takeActivatedSocket(address)
  if (address.type === 'unix' && handed === undefined) await removeStaleSocket(address.path, setting)
  const place: SocketAddress = handed === undefined ? address : { type: 'descriptor', fd: handed }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    const listening = () => {
      server.removeListener('error', reject)
      resolve()
    }
    const common = { backlog: 4096, ...options }
    switch (place.type) {
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
  if (handed !== undefined) return address
  if (address.type === 'unix') {
    chmodSync(address.path, access.mode)
    if (access.uid !== undefined || access.gid !== undefined) {
      try {
        chownSync(address.path, access.uid ?? -1, access.gid ?? -1)
      } catch (error) {
        const why = messageOf(error)
        throw new UsageFault(
          `${setting}: cannot give ${address.path} to its account and group: ${why}: start as root, or be a member of the group`,
          error,
        )
      }
    }
    return address
  }
  const bound = server.address()
  return bound === null || typeof bound === 'string' ? address : { type: 'tcp', host: bound.address, port: bound.port }
}

/**
 * A crash leaves its Unix socket behind. It is removed only if the kernel says that nobody listens
 * there; a busy server keeps it.
 * @throws TemporaryFault if somebody does, UsageFault if what is there is no socket.
 */
export async function removeStaleSocket(path: string, setting: string): Promise<void> {
  const status = lstatSync(path, { throwIfNoEntry: false })
  if (status === undefined) return
  if (!status.isSocket()) throw new UsageFault(`${path} is in the way and no socket: move it or change ${setting}`)
  const alive = await new Promise<boolean>(resolve => {
    const probe = createConnection({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', error => resolve(!('code' in error && error.code === 'ECONNREFUSED')))
  })
  if (alive) throw new TemporaryFault(`${path} is in use: stop the other server or change ${setting}`)
  unlinkSync(path)
}

function explain(error: unknown, address: SocketAddress, setting: string): Error {
  const code = errorCodeOf(error)
  const where = formatSocketAddress(address)
  switch (code) {
    case 'EADDRINUSE':
      return new TemporaryFault(`${where} is in use: stop the other server or change ${setting}`, error)
    case 'EACCES':
      // The runtime says EACCES for a Unix socket in a directory that is missing.
      if (address.type === 'unix' && !existsSync(dirname(address.path))) {
        return new UsageFault(
          `there is no directory ${dirname(address.path)} for ${setting}: create it, or change ${setting}`,
        )
      }
      return new UsageFault(`no right to listen on ${where}: ${remedyWithoutRight(address, setting)}`, error)
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new UsageFault(`this host has no address ${where}: change ${setting}`, error)
    default:
      return new TemporaryFault(`cannot listen on ${where} (${setting}): ${messageOf(error)}`, error)
  }
}

/** A right to a port is root's to give; a right to a directory is its owner's. */
function remedyWithoutRight(address: SocketAddress, setting: string): string {
  if (address.type !== 'unix') return `start as root, or change ${setting}`
  const account = accountWithUid(process.geteuid?.() ?? 0)?.name ?? `of uid ${process.geteuid?.()}`
  return `account ${account} may not write in ${dirname(address.path)}: give the directory to it, or choose its own directory in ${setting}`
}
