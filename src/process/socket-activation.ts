import { socketName } from '../libc/sockets.ts'
import { parseIpAddress, readAddress } from '../wire/ip-address.ts'
import { formatSocketAddress, type SocketAddress } from './socket-address.ts'

/** The first descriptor that a service manager hands over (sd_listen_fds(3)). */
const FIRST = 3
const MOST = 64

/**
 * Listening sockets that the service manager opened for us, by the address that they are bound to.
 * A setting that names the same address gets
 * its socket from here: no right to bind is needed then, and connections that come during a restart
 * wait in the kernel's queue.
 */
let waiting: Map<string, number> | undefined

/** The socket bound to exactly this address, once; undefined if none was handed to us, or it was taken before. */
export function takeActivatedSocket(address: SocketAddress): number | undefined {
  const found = activatedSockets()
  const key = keyOf(address)
  const descriptor = found.get(key)
  found.delete(key)
  return descriptor
}

/** Addresses of the sockets that nobody took: the unit of the service manager and our settings do not agree. */
export const unusedActivatedSockets = (): readonly string[] => [...activatedSockets().keys()]

function activatedSockets(): Map<string, number> {
  waiting ??= process.env['LISTEN_PID'] === String(process.pid) ? read(process.env['LISTEN_FDS']) : new Map()
  return waiting
}

function read(count = ''): Map<string, number> {
  const number = /^\d{1,2}$/.test(count) ? Math.min(Number(count), MOST) : 0
  const found = new Map<string, number>()
  for (let descriptor = FIRST; descriptor < FIRST + number; descriptor++) {
    const name = socketName(descriptor)
    if (name === undefined) continue
    const address: SocketAddress =
      name.family === 'unix'
        ? { type: 'unix', path: name.path }
        : { type: 'tcp', host: readAddress(name.octets), port: name.port }
    found.set(keyOf(address), descriptor)
  }
  return found
}

/** One spelling for one address. */
function keyOf(address: SocketAddress): string {
  const ip = address.type === 'tcp' ? parseIpAddress(address.host) : undefined
  return formatSocketAddress(address.type === 'tcp' && ip !== undefined ? { ...address, host: ip } : address)
}
