import { addressBytes, familyOf, type Network } from '../../src/wire/ip-address.ts'

/** The facts about a network in a file: objects of texts and numbers. */
export type MmdbRecord = { readonly [key: string]: string | number | MmdbRecord }

type Node = [Node | number | undefined, Node | number | undefined]

/**
 * A file of the format MMDB 2.0 with records of 24 bits. IPv4 networks are stored below ::/96, as
 * in published files.
 */
export function mmdb(records: readonly (readonly [Network, MmdbRecord])[], built: Date): Buffer {
  const data: Buffer[] = []
  let dataSize = 0
  const root: Node = [undefined, undefined]
  for (const [network, record] of records) {
    const at = dataSize
    const encoded = encode(record)
    data.push(encoded)
    dataSize += encoded.length
    const bits = bitsOf(network)
    let node = root
    for (const bit of bits.slice(0, -1)) {
      const next = node[bit]
      if (typeof next === 'object') node = next
      else {
        const made: Node = [undefined, undefined]
        node[bit] = made
        node = made
      }
    }
    node[bits.at(-1) ?? 0] = at
  }
  const nodes: Node[] = [root]
  for (const node of nodes) for (const child of node) if (typeof child === 'object') nodes.push(child)
  const tree = Buffer.alloc(nodes.length * 6)
  const indexes = new Map(nodes.map((node, index) => [node, index]))
  for (const [index, node] of nodes.entries())
    for (const [side, child] of node.entries()) {
      const value =
        child === undefined
          ? nodes.length
          : typeof child === 'number'
            ? nodes.length + 16 + child
            : (indexes.get(child) ?? 0)
      tree.writeUIntBE(value, index * 6 + side * 3, 3)
    }
  const metadata = encode({
    binary_format_major_version: 2,
    binary_format_minor_version: 0,
    build_epoch: Math.floor(built.getTime() / 1000),
    database_type: 'Test',
    ip_version: 6,
    node_count: nodes.length,
    record_size: 24,
  })
  return Buffer.concat([tree, Buffer.alloc(16), ...data, Buffer.from('\xab\xcd\xefMaxMind.com', 'latin1'), metadata])
}

function bitsOf({ base, prefixLength }: Network): (0 | 1)[] {
  const isV4 = familyOf(base) === 4
  const octets = [...(isV4 ? Array<number>(12).fill(0) : []), ...addressBytes(base)]
  return octets
    .flatMap(octet => [7, 6, 5, 4, 3, 2, 1, 0].map((shift): 0 | 1 => (((octet >> shift) & 1) === 1 ? 1 : 0)))
    .slice(0, (isV4 ? 96 : 0) + prefixLength)
}

function encode(value: string | number | MmdbRecord): Buffer {
  if (typeof value === 'number') {
    const octets = Buffer.alloc(4)
    octets.writeUInt32BE(value)
    return Buffer.concat([Buffer.from([(6 << 5) | 4]), octets])
  }
  if (typeof value === 'string') return Buffer.concat([Buffer.from([(2 << 5) | value.length]), Buffer.from(value)])
  const entries = Object.entries(value)
  return Buffer.concat([
    Buffer.from([(7 << 5) | entries.length]),
    ...entries.flatMap(([key, each]) => [encodeKey(key), encode(each)]),
  ])
}

/** A key may be longer than the 28 octets whose length fits into the first octet. */
const encodeKey = (key: string): Buffer =>
  key.length < 29 ? encode(key) : Buffer.concat([Buffer.from([(2 << 5) | 29, key.length - 29]), Buffer.from(key)])
