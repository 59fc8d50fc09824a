import { type IpAddress, type Network, parseIpAddress, parseNetwork } from '../../src/wire/ip-address.ts'

/** Parses an address that a test wrote; throws if the text is not an address. */
export function ip(text: string): IpAddress {
  const address = parseIpAddress(text)
  if (address === undefined) throw new Error(`not an address: ${text}`)
  return address
}

/** Parses a network that a test wrote; throws if the text is not a network. */
export function net(text: string): Network {
  const network = parseNetwork(text)
  if (network === undefined) throw new Error(`not a network: ${text}`)
  return network
}
