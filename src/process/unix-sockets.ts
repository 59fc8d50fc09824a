/**
 * Unix sockets of auth-relay: the directory and the file of a socket, and the permitted accounts.
 */
import { chownSync, existsSync, lstatSync, mkdirSync } from 'node:fs'
import type { Socket } from 'node:net'
import { dirname, relative } from 'node:path'
import { isAccessDenied, messageOf, UsageFault } from '../base/errors.ts'
import { peerCredentials } from '../libc/sockets.ts'
import type { Ids } from './privileges.ts'
import type { SocketAddress } from './socket-address.ts'

/** `owner`: the account that the program takes after it listens. */
export type SocketDirectoryOptions = {
  readonly runDir: string
  readonly setting: string
  readonly owner?: Ids | undefined
}

/**
 * Makes the directory of a Unix socket if it is missing and is `runDir` or lies below it. The mode
 * is 0755, because the mode of the socket decides which accounts connect. A directory below
 * `runDir` belongs to `owner`, so that a program without root can remove its socket at its end. Any
 * other missing directory is not made, because its name may be a typing error.
 * @throws UsageFault if the directory cannot be made.
 */
export function makeSocketDirectory(address: SocketAddress, { runDir, setting, owner }: SocketDirectoryOptions): void {
  if (address.kind !== 'unix') return
  const directory = dirname(address.path)
  const below = relative(runDir, directory)
  if (below.split('/')[0] === '..' || existsSync(directory)) return
  const umask = process.umask(0o022)
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 })
    if (owner !== undefined && below !== '') chownSync(directory, owner.uid, owner.gid)
  } catch (error) {
    const why = messageOf(error)
    const remedy = `create it (install -d -m 755 ${directory}) or change ${setting}`
    throw new UsageFault(`${setting}: cannot make ${directory}: ${why}: ${remedy}`, error)
  } finally {
    process.umask(umask)
  }
}

const CHECK_INTERVAL_MS = 1_000

/**
 * Checks once a second that a Unix socket of this process is still at its path. A clean-up of /run
 * may have removed it, and the server gets no error. `missing` resolves, once, with the reason.
 */
export function watchSocketFile(path: string): { readonly missing: Promise<string>; stop(): void } {
  const inode = lstatSync(path).ino
  const { promise: missing, resolve } = Promise.withResolvers<string>()
  const timer = setInterval(() => {
    if (isStill(path, inode)) return
    clearInterval(timer)
    resolve(`${path} was removed or replaced, so that no client can connect`)
  }, CHECK_INTERVAL_MS).unref()
  return { missing, stop: () => clearInterval(timer) }
}

/** If this account may not enter the directory, the socket counts as unchanged. */
function isStill(path: string, inode: number): boolean {
  try {
    return lstatSync(path).ino === inode
  } catch (error) {
    return isAccessDenied(error)
  }
}

/**
 * True if the peer of a Unix socket is permitted, by its uid from the kernel (SO_PEERCRED): root,
 * the account of this process, and `uids`. False if the uid is not readable.
 */
export function peerIsAllowed(socket: Socket, uids: ReadonlySet<number>): boolean {
  try {
    const { uid } = peerCredentials(socket)
    return uid === 0 || uid === process.geteuid?.() || uids.has(uid)
  } catch {
    return false // The peer has closed the socket, or it is not a Unix socket.
  }
}
