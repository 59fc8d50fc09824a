import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import type { Clock } from '../daemon/clock.ts'
import { UsageFault } from '../daemon/exit-status.ts'
import type { Log } from '../daemon/log.ts'
import { type CdbRecord, formatCdb } from '../wire/cdb.ts'
import { familyOf, formatNetwork, type IpAddress, type Network } from '../wire/ip-address.ts'
import { formatTcpRule, parseTcpRules, type TcpRule, tcpRuleKeys } from '../wire/tcprules.ts'
import { grantVariables } from './decision.ts'

/** A grant as the cdb knows it. `until`: Unix seconds; undefined: without end. */
export type ListedGrant = {
  readonly network: Network
  readonly until: number | undefined
  readonly login: string | undefined
}

export type CdbDoorOptions = {
  /** The cdb of `tcpserver -x`; replaced in one step. */
  readonly path: string
  /** The site's own rules text, or empty. */
  readonly rulesPath: string
  readonly relayclientValue: string
  readonly list: (signal: AbortSignal) => Promise<readonly ListedGrant[]>
  /** Calls `heard` soon after the list has changed; it may never come. */
  readonly onChange: (heard: () => void) => void
  readonly refusal: (ip: IpAddress) => string | undefined
  readonly timeoutMs: number
  /** How often the store is asked. A grant that ends is taken out to the second even if the store is away. */
  readonly intervalMs: number
  readonly clock: Clock
  readonly log: Log
}

/** Milliseconds after a change: others may follow it. */
const SOON = 20

/** Keeps a tcprules cdb up to date for sites that stay with tcpserver. */
export class CdbDoor {
  #options: CdbDoorOptions
  #grants: readonly ListedGrant[] = []
  #written: Buffer | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false
  /** Told that the list has changed since the last look. */
  #isDue = false
  /** Milliseconds that the last look took. */
  #took = 0
  #round: Promise<void> | undefined

  constructor(options: CdbDoorOptions) {
    this.#options = options
  }

  /** Writes the file for the first time and keeps it; a store that is away only leaves the site's rules. Throws UsageFault if it cannot be written. */
  async start(): Promise<void> {
    await this.#fetch()
    try {
      this.#write()
    } catch (error) {
      const { path } = this.#options
      const why = error instanceof Error ? error.message : String(error)
      throw new UsageFault(
        `cannot make wrap.tcprules_cdb ${path}: ${why}: its directory must belong to wrap.smtpd_user`,
        error,
      )
    }
    this.#options.onChange(() => this.#changed())
    this.#schedule()
  }

  /** From the next round on; the path stays. */
  reconfigure(options: CdbDoorOptions): void {
    this.#options = { ...options, path: this.#options.path }
    options.onChange(() => this.#changed())
  }

  /** Asks and writes at once (SIGHUP, tests). */
  async refresh(): Promise<void> {
    const started = performance.now()
    this.#isDue = false
    await this.#fetch()
    this.#write()
    this.#took = performance.now() - started
  }

  /** Stops. The file is left without grants: nobody would take them out any more. */
  async stop(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#round
    this.#grants = []
    this.#write()
  }

  #changed(): void {
    this.#isDue = true
    if (this.#round === undefined) this.#schedule()
  }

  /** For the next look: at once when the list has changed, but no more than a tenth of the time goes into looking for that. */
  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    const now = this.#options.clock()
    const firstEnd = this.#live().reduce((first, { until = Infinity }) => Math.min(first, until * 1000 - now), Infinity)
    const next = this.#isDue ? Math.max(SOON, 9 * this.#took) : this.#options.intervalMs
    const wait = Math.max(10, Math.min(this.#options.intervalMs, next, firstEnd))
    this.#timer = setTimeout(() => {
      this.#round = this.refresh()
        .catch((error: unknown) => {
          this.#options.log.error('cdb_error', {
            path: this.#options.path,
            error: error instanceof Error ? error : String(error),
          })
        })
        .finally(() => {
          this.#round = undefined
          this.#schedule()
        })
    }, wait)
  }

  async #fetch(): Promise<void> {
    const { list, timeoutMs, log } = this.#options
    try {
      this.#grants = await list(AbortSignal.timeout(timeoutMs))
    } catch (error) {
      // What we know goes on to expire; nobody new gets in.
      log.error('error', { door: 'cdb', relay: false, error: error instanceof Error ? error : String(error) })
    }
  }

  #live(): readonly ListedGrant[] {
    const now = this.#options.clock() / 1000
    return this.#grants.filter(
      ({ network, until }) => (until ?? Infinity) > now && this.#options.refusal(network.base) === undefined,
    )
  }

  #write(): void {
    const { path, log } = this.#options
    const live = this.#live()
    const file = formatCdb(this.#records(live))
    if (this.#written?.equals(file)) return
    const temporary = `${path}.tmp.${process.pid}`
    try {
      writeFileSync(temporary, file, { mode: 0o644 })
      renameSync(temporary, path)
    } catch (error) {
      rmSync(temporary, { force: true })
      throw error
    }
    this.#written = file
    log.info('cdb', { path, grants: live.length })
  }

  /** A granted address gets a record of its own, which hides the site's rule for its network: so it takes over what that says, and a deny wins. */
  #records(live: readonly ListedGrant[]): CdbRecord[] {
    const { relayclientValue } = this.#options
    const site = this.#siteRules()
    // tcpserver takes the first record of a key.
    const rules = new Map<string, TcpRule>()
    for (const { address, rule } of site) if (!rules.has(address)) rules.set(address, rule)
    const records = new Map([...rules].map(([address, rule]) => [address, formatTcpRule(rule)]))
    for (const { network, until, login } of live) {
      const keys = keysOf(network)
      const [key] = keys
      const applying = keys.map(candidate => rules.get(candidate)).find(rule => rule !== undefined)
      if (key === undefined || applying?.allow === false) continue
      const granted = { RELAYCLIENT: relayclientValue, ...grantVariables({ until, login }) }
      records.set(key, formatTcpRule({ allow: true, environment: { ...granted, ...applying?.environment } }))
    }
    return [...records].map(([key, value]) => ({ key: Buffer.from(key), value }))
  }

  #siteRules(): { readonly address: string; readonly rule: TcpRule }[] {
    const { rulesPath } = this.#options
    if (rulesPath === '') return []
    const { lines, faults } = parseTcpRules(readFileSync(rulesPath, 'utf8'))
    const [fault] = faults
    // As tcprules does: with one faulty line the old file stays as it is.
    if (fault !== undefined) throw new Error(`${rulesPath}:${fault.line}: ${fault.reason}`)
    return lines.flatMap(({ addresses, rule }) => addresses.map(address => ({ address, rule })))
  }
}

/**
 * The addresses under which a rule for this network may stand, its own first, as far as they depend on the address alone. Empty for an IPv4 network that has
 * no such address: tcpserver asks for prefixes at the dots only.
 */
function keysOf(network: Network): readonly string[] {
  const { base, prefixLength } = network
  const keys = [...tcpRuleKeys({ ip: base })]
  if (familyOf(base) === 6) return keys.slice(prefixLength === 128 ? 0 : keys.indexOf(formatNetwork(network)))
  if (prefixLength % 8 !== 0 || prefixLength === 0) return []
  return keys.slice((32 - prefixLength) / 8)
}
