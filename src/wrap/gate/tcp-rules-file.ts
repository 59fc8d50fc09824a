/** The file of rules for `tcpserver -x`: its lookup, its limit, and when it is read again. */
import { readFileSync, statSync } from 'node:fs'
import { Cdb } from '../../wire/cdb.ts'
import { parseTcpRule, type TcpRule, type TcpRuleQuery, tcpRuleKeys } from '../../wire/tcprules.ts'

/** Largest cdb that is accepted as a rules file, in octets. */
const MAX_OCTETS = 256 * 1024 * 1024

const EVERYBODY: TcpRule = { allow: true, environment: {} }

/**
 * The rules of `tcpserver -x`: a cdb of tcprules. A new file applies from the next connection on.
 */
export class TcpRulesFile {
  readonly #path: string
  #version = ''
  #cdb: Cdb | undefined

  constructor(path: string) {
    this.#path = path
  }

  /**
   * Returns the rule for a connection. Without a rule the connection is accepted. Throws if the
   * file is missing or damaged, as tcpserver does.
   */
  find(query: TcpRuleQuery): TcpRule {
    const cdb = this.#current()
    for (const key of tcpRuleKeys(query)) {
      const data = cdb.get(key)
      if (data !== undefined) return parseTcpRule(data)
    }
    return EVERYBODY
  }

  #current(): Cdb {
    const { ino, mtimeNs, size } = statSync(this.#path, { bigint: true })
    const version = `${ino} ${mtimeNs} ${size}`
    if (this.#cdb !== undefined && version === this.#version) return this.#cdb
    if (size > MAX_OCTETS) throw new Error(`${this.#path} is too large for a rules file`)
    this.#cdb = new Cdb(readFileSync(this.#path))
    this.#version = version
    return this.#cdb
  }
}
