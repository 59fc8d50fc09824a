import { existsSync, readFileSync } from 'node:fs'
import { type PolicySettings, policyOf } from '../../grants/policy-of.ts'
import { type IpAddress, readAddress } from '../../wire/ip-address.ts'
import { type Finding, fine, unsafe } from './finding.ts'

/** Files that podman and docker put into each container. */
const MARKS = ['/run/.containerenv', '/.dockerenv']

export type ContainerSurroundings = { readonly marks?: readonly string[]; readonly routes?: string }

/**
 * Judges the gateway of a container's network. With a rootless network or docker's userland proxy every client has the address
 * of the gateway, so that one login from there would open the relay for all of them.
 */
export function checkContainer(
  settings: PolicySettings,
  { marks = MARKS, routes = '/proc/net' }: ContainerSurroundings = {},
): readonly Finding[] {
  if (!marks.some(path => existsSync(path))) return []
  const { neverList } = policyOf(settings)
  const about = 'grants.never_grant'
  return gateways(routes).map(gateway =>
    neverList.describe(gateway) === undefined
      ? unsafe(
          about,
          `the gateway ${gateway} of this container can be granted: with a rootless network or docker's userland proxy every client has that address`,
          `add the network of ${gateway} to never_grant`,
        )
      : fine(about, `the gateway ${gateway} of this container is never granted`),
  )
}

/** Gateways of the default routes, as the kernel lists them: `route` for IPv4, `ipv6_route` for IPv6. */
function gateways(directory: string): readonly IpAddress[] {
  const v4 = linesOf(`${directory}/route`).flatMap(line => {
    const [, destination, gateway = '', , , , , mask] = line.split('\t')
    // The kernel prints the number of the octets in memory, whose order is that of the processor: little-endian on x86 and ARM.
    return destination === '00000000' && mask === '00000000' ? [Buffer.from(gateway, 'hex').reverse()] : []
  })
  const v6 = linesOf(`${directory}/ipv6_route`).flatMap(line => {
    const [destination = '', length, , , gateway = ''] = line.split(/\s+/)
    return length === '00' && /^0+$/.test(destination) ? [Buffer.from(gateway, 'hex')] : []
  })
  // A route without a gateway has the address of zeros.
  const found = [...v4, ...v6].filter(octets => octets.some(octet => octet !== 0)).map(octets => readAddress(octets))
  return [...new Set(found)]
}

function linesOf(path: string): readonly string[] {
  return existsSync(path) ? readFileSync(path, 'latin1').trimEnd().split('\n') : []
}
