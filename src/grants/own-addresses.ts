import type { NetworkInterfaceInfo } from 'node:os'
import { type IpAddress, LOOPBACK, parseIpAddress } from '../wire/ip-address.ts'

/**
 * The host's own addresses, loopback apart, read again when they are older than `maxAgeMs`: addresses come and go.
 * `interfaces` is os.networkInterfaces, `clock` gives milliseconds.
 */
export function ownAddresses(
  interfaces: () => NodeJS.Dict<NetworkInterfaceInfo[]>,
  clock: () => number,
  maxAgeMs = 2000,
): () => ReadonlySet<IpAddress> {
  let known: ReadonlySet<IpAddress> = new Set()
  let readAt = Number.NEGATIVE_INFINITY
  return () => {
    const now = clock()
    // A clock that was set back counts as old too.
    if (now - readAt >= maxAgeMs || now < readAt) {
      known = addressesOf(interfaces())
      readAt = now
    }
    return known
  }
}

function addressesOf(interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>): ReadonlySet<IpAddress> {
  const found = new Set<IpAddress>()
  for (const { address } of Object.values(interfaces).flatMap(list => list ?? [])) {
    const ip = parseIpAddress(address)
    if (ip !== undefined && !LOOPBACK.has(ip)) found.add(ip)
  }
  return found
}
