import { type IpAddress, type Network, parseIpAddress, parseNetwork } from '../../src/wire/ip-address.ts'

/** The address of a text that a test wrote. */
export function ip(text: string): IpAddress {
  const address = parseIpAddress(text)
  if (address === undefined) throw new Error(`not an address: ${text}`)
  return address
}

/** The network of a text that a test wrote. */
export function net(text: string): Network {
  const network = parseNetwork(text)
  if (network === undefined) throw new Error(`not a network: ${text}`)
  return network
}
