import { addressBytes, familyOf, type Network, readAddress } from './ip-address.ts'

/** A network by its octets, so that networks can be compared bit by bit. */
type Bits = { readonly bytes: Uint8Array; readonly length: number }

const bitsOf = ({ base, prefixLength }: Network): Bits => ({ bytes: addressBytes(base), length: prefixLength })

/** Takes networks out of other networks: for tables whose rows are networks and that cannot hold exceptions. */
export class NetworkDifference {
  readonly #taken: readonly Bits[]

  constructor(taken: Iterable<Network>) {
    this.#taken = [...taken].map(bitsOf)
  }

  /** The largest networks that together hold every address of the network but those that are taken out. */
  of(network: Network): readonly Network[] {
    const bits = bitsOf(network)
    const inside = this.#taken.filter(taken => overlap(taken, bits))
    return inside.length === 0 ? [network] : remainder(bits, inside)
  }
}

/** `taken`: networks that overlap `network`. Each of them costs one network per bit of its length at most. */
function remainder(network: Bits, taken: readonly Bits[]): readonly Network[] {
  if (taken.length === 0) {
    const base = readAddress(network.bytes)
    // IPv4-mapped addresses are IPv4 addresses: as IPv6 ones they never come.
    return familyOf(base) === (network.bytes.length === 4 ? 4 : 6) ? [{ base, prefixLength: network.length }] : []
  }
  if (taken.some(({ length }) => length <= network.length)) return []
  return halvesOf(network).flatMap(half =>
    remainder(
      half,
      taken.filter(each => overlap(each, half)),
    ),
  )
}

function halvesOf({ bytes, length }: Bits): readonly Bits[] {
  const upper = Uint8Array.from(bytes)
  const at = length >> 3
  upper[at] = (upper[at] ?? 0) | (0x80 >> (length & 7))
  return [bytes, upper].map(half => ({ bytes: half, length: length + 1 }))
}

/** Two networks overlap if one holds the other: they agree in the bits of the shorter prefix. */
function overlap(a: Bits, b: Bits): boolean {
  if (a.bytes.length !== b.bytes.length) return false
  const length = Math.min(a.length, b.length)
  const whole = length >> 3
  for (let n = 0; n < whole; n++) if (a.bytes[n] !== b.bytes[n]) return false
  const differing = (a.bytes[whole] ?? 0) ^ (b.bytes[whole] ?? 0)
  return differing >> (8 - (length & 7)) === 0
}
