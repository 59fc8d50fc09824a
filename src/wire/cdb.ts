/** The cdb format (cr.yp.to/cdb/cdb.txt): writing a file, and looking up keys in one. */

/**
 * A record of a cdb. A key has one character for each octet. Keys may repeat; the first one counts.
 */
export type CdbRecord = { readonly key: string; readonly value: Uint8Array }

/** A power of two: a lookup takes the table from the low bits of the hash. */
const TABLES = 256
const HEADER = TABLES * 8
const MAX_OCTETS = 0xffff_ffff

/** The hash of the cdb format: `h = ((h << 5) + h) ^ octet`, from 5381, in 32 bits. */
function hashOf(key: string): number {
  let hash = 5381
  for (let at = 0; at < key.length; at += 1) hash = ((hash << 5) + hash) ^ key.charCodeAt(at)
  return hash >>> 0
}

/** Makes a cdb file. Throws RangeError above 4 GiB, the limit of the format. */
export function formatCdb(records: readonly CdbRecord[]): Buffer {
  const data = records.reduce((size, { key, value }) => size + 8 + key.length + value.length, 0)
  const size = HEADER + data + records.length * 16
  if (size > MAX_OCTETS) throw new RangeError(`a cdb holds at most 4 GiB, not ${size} octets`)
  const file = Buffer.alloc(size)
  const tables: { hash: number; position: number }[][] = Array.from({ length: TABLES }, () => [])
  let at = HEADER
  for (const { key, value } of records) {
    const hash = hashOf(key)
    tables[hash & (TABLES - 1)]?.push({ hash, position: at })
    file.writeUInt32LE(key.length, at)
    file.writeUInt32LE(value.length, at + 4)
    file.write(key, at + 8, 'latin1')
    file.set(value, at + 8 + key.length)
    at += 8 + key.length + value.length
  }
  for (const [index, entries] of tables.entries()) {
    const slots = entries.length * 2
    file.writeUInt32LE(at, index * 8)
    file.writeUInt32LE(slots, index * 8 + 4)
    for (const { hash, position } of entries) {
      let slot = (hash >>> 8) % slots
      while (file.readUInt32LE(at + slot * 8 + 4) !== 0) slot = (slot + 1) % slots
      file.writeUInt32LE(hash, at + slot * 8)
      file.writeUInt32LE(position, at + slot * 8 + 4)
    }
    at += slots * 8
  }
  return file
}

/** The file is not a cdb, or it is damaged. */
export class CdbDamaged extends Error {
  override readonly name = 'CdbDamaged'
}

const BEHIND_THE_END = 'a position points behind the end of the cdb'

/**
 * A cdb in memory. Every position is checked, so that a damaged file throws CdbDamaged instead of
 * returning wrong data.
 */
export class Cdb {
  readonly #file: Buffer

  constructor(file: Buffer) {
    if (file.length < HEADER) throw new CdbDamaged(`a cdb has at least ${HEADER} octets, this file has ${file.length}`)
    this.#file = file
  }

  /** Value of the first record with this key, or undefined. */
  get(key: string): Buffer | undefined {
    const hash = hashOf(key)
    const pointer = (hash & (TABLES - 1)) * 8
    const slots = this.#number(pointer + 4)
    // Most tables of a small file are empty.
    if (slots === 0) return undefined
    const table = this.#number(pointer)
    for (let probe = 0, slot = (hash >>> 8) % slots; probe < slots; probe++, slot = (slot + 1) % slots) {
      const position = this.#number(table + slot * 8 + 4)
      if (position === 0) return undefined
      if (this.#number(table + slot * 8) !== hash) continue
      const keyLength = this.#number(position)
      const valueLength = this.#number(position + 4)
      if (this.#text(position + 8, keyLength) === key) return this.#slice(position + 8 + keyLength, valueLength)
    }
    return undefined
  }

  /** Every record in the order of the file. */
  *records(): Generator<CdbRecord> {
    let end = this.#file.length
    for (let table = 0; table < TABLES; table++) end = Math.min(end, this.#number(table * 8))
    for (let at = HEADER; at < end; ) {
      const keyLength = this.#number(at)
      const valueLength = this.#number(at + 4)
      yield { key: this.#text(at + 8, keyLength), value: this.#slice(at + 8 + keyLength, valueLength) }
      at += 8 + keyLength + valueLength
    }
  }

  #number(at: number): number {
    if (at + 4 > this.#file.length) throw new CdbDamaged(BEHIND_THE_END)
    return this.#file.readUInt32LE(at)
  }

  #text(at: number, length: number): string {
    return this.#slice(at, length).toString('latin1')
  }

  #slice(at: number, length: number): Buffer {
    if (at + length > this.#file.length) throw new CdbDamaged(BEHIND_THE_END)
    return this.#file.subarray(at, at + length)
  }
}
