/** Finds the addresses of a container's own network, which must never be granted. */

import { existsSync, readFileSync } from 'node:fs'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { type PolicySettings, policyOf } from '../../grants/grant-policy.ts'
import {
  formatNetwork,
  type IpAddress,
  type Network,
  networkContains,
  networkOf,
  parseIpAddress,
  readAddress,
} from '../../wire/ip-address.ts'
import { type Finding, fine, unsafe } from './finding.ts'

export type ContainerSurroundings = {
  /** Files that podman and docker put into each container. */
  readonly marks?: readonly string[]
  /** Directory of the kernel's tables of routes. */
  readonly routes?: string
  /** Directory of the kernel's network devices. */
  readonly devices?: string
  readonly interfaces?: () => NodeJS.Dict<NetworkInterfaceInfo[]>
}

const MARKS = ['/run/.containerenv', '/.dockerenv']

/**
 * Checks the networks of a container. Behind a rootless network or docker's userland proxy every
 * client has the address of the gateway or of the container. One login from there would open the
 * relay for all clients.
 */
export function checkContainer(
  settings: PolicySettings,
  {
    marks = MARKS,
    routes = '/proc/net',
    devices = '/sys/class/net',
    interfaces = networkInterfaces,
  }: ContainerSurroundings = {},
): readonly Finding[] {
  if (!marks.some(path => existsSync(path))) return []
  const { neverList } = policyOf(settings)
  const findingOf = (what: string, isGranted: boolean): Finding => {
    const about = 'grants.never_grant'
    if (!isGranted) return fine(about, `${what} is never granted`)
    const why = "with a rootless network or docker's userland proxy every client has such an address"
    return unsafe(about, `${what} can be granted: ${why}`, `add it to never_grant`)
  }
  const networks = networksOfEngine(interfaces(), devices)
  const others = gateways(routes, devices).filter(ip => !networks.some(network => networkContains(network, ip)))
  return [
    ...networks.map(network =>
      findingOf(`the container's network ${formatNetwork(network)}`, neverList.networkRefusal(network) === undefined),
    ),
    ...others.map(ip => findingOf(`the container's gateway ${ip}`, neverList.describe(ip) === undefined)),
  ]
}

/**
 * Networks of the devices that a container engine made: one end of a pair whose other end is in
 * another network namespace. Other devices show the client's address: those of the host
 * (network_mode: host), and macvlan.
 */
function networksOfEngine(interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>, devices: string): readonly Network[] {
  const isPair = (name: string): boolean => {
    const read = (file: string): string => linesOf(`${devices}/${name}/${file}`).join('\n')
    return read('iflink') !== read('ifindex') && !read('uevent').includes('DEVTYPE=')
  }
  return Object.entries(interfaces)
    .filter(([name]) => isPair(name))
    .flatMap(([, addresses = []]) => addresses)
    .flatMap(({ cidr, scopeid }) => {
      const [address = '', length = ''] = (cidr ?? '').split('/')
      const ip = parseIpAddress(address)
      // A scope other than 0: link-local, and never granted.
      return ip === undefined || (scopeid ?? 0) !== 0 ? [] : [networkOf(ip, Number(length))]
    })
}

/** Gateways of the default routes that do not leave by a network card. */
function gateways(routes: string, devices: string): readonly IpAddress[] {
  const isCard = (name: string): boolean => existsSync(`${devices}/${name}/device`)
  const v4 = linesOf(`${routes}/route`).flatMap(line => {
    const [device = '', destination, gateway = '', , , , , mask] = line.split('\t')
    const isDefault = destination === '00000000' && mask === '00000000'
    // The kernel prints the number of the octets in memory, whose order is that of the processor:
    // little-endian on x86 and ARM.
    return isDefault && !isCard(device) ? [Buffer.from(gateway, 'hex').reverse()] : []
  })
  const v6 = linesOf(`${routes}/ipv6_route`).flatMap(line => {
    const [destination = '', length, , , gateway = '', , , , , device = ''] = line.split(/\s+/)
    return length === '00' && /^0+$/.test(destination) && !isCard(device) ? [Buffer.from(gateway, 'hex')] : []
  })
  // A route without a gateway has the address of zeros.
  const found = [...v4, ...v6].filter(octets => octets.some(octet => octet !== 0)).map(octets => readAddress(octets))
  return [...new Set(found)]
}

const linesOf = (path: string): readonly string[] =>
  existsSync(path) ? readFileSync(path, 'latin1').trimEnd().split('\n') : []
