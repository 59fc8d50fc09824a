/** Country and AS number of an address, from the MMDB files of this host. */

import { readFileSync } from 'node:fs'
import { Reader } from 'mmdb-lib'
import * as v from 'valibot'
import { messageOf, UsageFault } from '../../base/errors.ts'
import type { IpAddress } from '../../wire/ip-address.ts'

/** Fields that the files of several publishers share. */
const RECORD = v.object({
  country: v.optional(v.object({ iso_code: v.optional(v.string()) })),
  autonomous_system_number: v.optional(v.number()),
})

/**
 * Country and AS number of addresses, from MMDB files of this host. Each file is read at the first
 * lookup and stays in memory. The facts only ever narrow what a device may do: an address that no
 * file contains is in no place.
 */
export class NetworkFacts {
  readonly #paths: readonly string[]
  #readers: readonly { readonly path: string; readonly reader: Reader<never> }[] | undefined

  constructor(paths: readonly string[]) {
    this.#paths = paths
  }

  /** `["DE", "AS64500"]`. Throws UsageFault if a file cannot be read. */
  placesOf(ip: IpAddress): readonly string[] {
    return this.#open().flatMap(({ reader }) => {
      const found: unknown = reader.get(ip)
      const record = v.safeParse(RECORD, found)
      if (!record.success) return []
      const { country, autonomous_system_number: system } = record.output
      return [
        ...(country?.iso_code === undefined ? [] : [country.iso_code]),
        ...(system === undefined ? [] : [`AS${system}`]),
      ]
    })
  }

  /** When each file was made, by its path. Throws UsageFault as placesOf. */
  get built(): ReadonlyMap<string, Date> {
    return new Map(this.#open().map(({ path, reader }) => [path, reader.metadata.buildEpoch]))
  }

  #open() {
    this.#readers ??= this.#paths.map(path => {
      try {
        return { path, reader: new Reader<never>(readFileSync(path)) }
      } catch (error) {
        throw new UsageFault(
          {
            setting: 'grants.mmdb_files',
            fact: `${path}: ${messageOf(error)}`,
            remedy: 'install the file, or take it out of the setting',
          },
          error,
        )
      }
    })
    return this.#readers
  }
}

/** `DE`, or `AS64500`. */
export const isPlace = (text: string): boolean => /^(?:[A-Z]{2}|AS[1-9]\d{0,9})$/.test(text)
