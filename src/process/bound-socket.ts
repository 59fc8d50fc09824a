import { closeSync, renameSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { descriptorOf } from '../base/node-internals.ts'
import { duplicateDescriptor } from '../libc/descriptors.ts'
import { openListener, removeStaleSocket, type UnixSocketAccess } from './listener.ts'
import { takeActivatedSocket } from './socket-activation.ts'
import type { SocketAddress } from './socket-address.ts'

/**
 * A socket that listens and from which this process never accepts: it is held for workers, which
 * inherit the descriptor.
 * Connections that come while no worker runs wait in the kernel's queue, so a crash or an idle end
 * of a worker loses none.
 */
export type BoundSocket = {
  readonly descriptor: number
  /** Where it listens, with the port that the kernel chose for port 0. */
  readonly address: SocketAddress
  /** The service manager's: it was there before us, and stays. */
  readonly isHanded: boolean
  /** Stops holding it, and removes a Unix socket's path. Workers that have it go on listening. */
  release(): void
}

/**
 * Binds and listens, or takes the socket that the service manager handed over for this address. A
 * Unix socket appears under its name only when it is ready and its owner and mode are set.
 * @throws TemporaryFault, UsageFault as openListener.
 */
export async function holdListener(
  address: SocketAddress,
  setting: string,
  access?: UnixSocketAccess,
  options: { readonly reusePort?: boolean } = {},
): Promise<BoundSocket> {
  const handed = takeActivatedSocket(address)
  if (handed !== undefined) return { descriptor: handed, address, isHanded: true, release: () => closeSync(handed) }
  const path = address.type === 'unix' ? address.path : undefined
  // Taking a new name over an old one asks nobody: a living server there is found before.
  if (path !== undefined) await removeStaleSocket(path, setting)
  const server = createServer()
  // The runtime's server would accept, and unlinks its path when it is closed: it binds under another name.
  const temporary: SocketAddress = path === undefined ? address : { type: 'unix', path: `${path}.new` }
  const bound = await openListener(server, temporary, setting, access, options)
  const descriptor = duplicateDescriptor(descriptorOf(server), 10)
  if (path !== undefined) renameSync(`${path}.new`, path)
  // Nothing was accepted: the event loop has not polled since the socket began to listen.
  server.close()
  return {
    descriptor,
    address: path === undefined ? bound : address,
    isHanded: false,
    release: () => {
      closeSync(descriptor)
      if (path !== undefined) rmSync(path, { force: true })
    },
  }
}

/**
 * As holdListener, for several workers: a TCP port gets a socket for each, among which the kernel
 * spreads the clients (SO_REUSEPORT). From
 * one socket the first worker to wake would take a whole burst. Other addresses, and descriptors,
 * get one socket for all.
 */
export async function holdListeners(
  address: SocketAddress,
  count: number,
  setting: string,
): Promise<readonly BoundSocket[]> {
  const first = await holdListener(address, setting)
  if (count === 1 || address.type !== 'tcp' || first.isHanded) return [first]
  // Sockets that share a port would share it with a second server of ours as well; so whether it is
  // free was asked without that.
  first.release()
  const held: BoundSocket[] = []
  for (let i = 0; i < count; i++) {
    held.push(await holdListener(first.address, setting, undefined, { reusePort: true }))
  }
  return held
}
