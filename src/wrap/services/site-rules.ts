/**
 * The records of the cdb export: the site's rules and the grants in one cdb, where a deny of the
 * site overrides each grant.
 */
import { readFileSync, statSync } from 'node:fs'
import { Cdb, formatCdb } from '../../wire/cdb.ts'
import { type Network, networkContains } from '../../wire/ip-address.ts'
import {
  bitKeysOfText,
  bitRuleKeys,
  networkOfText,
  parseTcpRule,
  parseTcpRules,
  type TcpRule,
  type TcpRuleRecord,
  textRuleKeys,
} from '../../wire/tcprules.ts'

/** Key of the record with the number of grants that follow it. No tcpserver looks up this key. */
const MARK = '#auth-relay'

/** The site's own rules, and the cdb made from them and the grants. */
export class SiteRules {
  static readonly NONE = new SiteRules([])

  readonly #records: readonly TcpRuleRecord[]
  /** tcpserver uses the first record of a key. */
  readonly #first = new Map<string, Uint8Array>()
  /**
   * Networks that are denied in CIDR notation. A record of a grant in text form could hide such a
   * rule: tcpserver finds a prefix in text form first, or does not find CIDR keys at all.
   */
  readonly #denied: readonly Network[]

  private constructor(records: readonly TcpRuleRecord[]) {
    this.#records = records
    for (const { key, data } of records) if (!this.#first.has(key)) this.#first.set(key, data)
    this.#denied = [...this.#first]
      .filter(([key, data]) => key.includes('/') && !parseTcpRule(data).allow)
      .flatMap(([key]) => networkOfText(key) ?? [])
  }

  /**
   * Reads a rules text. Throws an Error that names the first line which tcprules would not accept,
   * or why the file cannot be read.
   */
  static read(path: string): SiteRules {
    if (!statSync(path).isFile()) throw new Error(`${path} is not a regular file`)
    const { records, faults } = parseTcpRules(readFileSync(path))
    const [fault] = faults
    if (fault !== undefined) throw new Error(`${path}:${fault.line}: ${fault.reason}`)
    return new SiteRules(
      records.flatMap(({ key, data }) => [{ key, data }, ...bitKeysOfText(key).map(bits => ({ key: bits, data }))]),
    )
  }

  /** Returns the rules in a cdb of `format`, without the grants. Undefined for every other file. */
  static recover(path: string): SiteRules | undefined {
    try {
      const [mark, ...records] = new Cdb(readFileSync(path)).records()
      if (mark?.key !== MARK) return undefined
      const site = records.slice(
        Number(/^grants=(\d{1,10})$/.exec(Buffer.from(mark.value).toString())?.[1] ?? Infinity),
      )
      return new SiteRules(site.map(({ key, value }) => ({ key, data: value })))
    } catch {
      return undefined // The file is missing or not a cdb.
    }
  }

  /**
   * Makes a cdb of these rules and of records for granted networks. `dataFor` makes the data of a
   * grant's record from the grant and from the site's rule for a wider network, which the record
   * hides. If that rule is a deny, the grant gets no record, because a deny of the site overrides a
   * grant.
   */
  format<T extends { readonly network: Network }>(
    grants: readonly T[],
    dataFor: (grant: T, rule: TcpRule | undefined) => Uint8Array,
  ): Buffer {
    const granted = new Map<string, Uint8Array>()
    for (const grant of grants) {
      for (const { keys, rule } of this.#keysFor(grant.network)) {
        for (const key of keys) if (!granted.has(key)) granted.set(key, dataFor(grant, rule))
      }
    }
    return formatCdb([
      { key: MARK, value: Buffer.from(`grants=${granted.size}`) },
      ...[...granted].map(([key, value]) => ({ key, value })),
      ...this.#records.map(({ key, data }) => ({ key, value: data })),
    ])
  }

  /** Returns keys for a granted network, each with the rule of the site that it hides. */
  #keysFor(network: Network): readonly { keys: readonly string[]; rule: TcpRule | undefined }[] {
    const find = ({ own, around }: { own: readonly string[]; around: readonly string[] }) => ({
      keys: own,
      rule: this.#find([...own, ...around]),
    })
    const bits = find(bitRuleKeys(network))
    const texts = textRuleKeys(network).map(find)
    // The rule may be written for the other program, so a deny counts in both spellings.
    if (isDeny(bits) || (texts.length > 0 && texts.every(isDeny))) return []
    const hidesDeny = this.#denied.some(({ base, prefixLength }) => {
      return prefixLength > network.prefixLength && networkContains(network, base)
    })
    return [...(hidesDeny ? [] : texts.filter(text => !isDeny(text))), bits]
  }

  #find(keys: readonly string[]): TcpRule | undefined {
    const data = keys.map(key => this.#first.get(key)).find(each => each !== undefined)
    return data === undefined ? undefined : parseTcpRule(data)
  }
}

const isDeny = ({ rule }: { rule: TcpRule | undefined }): boolean => rule?.allow === false
