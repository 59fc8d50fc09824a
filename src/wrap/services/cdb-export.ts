/** The cdb export: a tcprules cdb with the site's rules and the current grants. */
import { closeSync, constants, ftruncateSync, openSync, statSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../base/clock.ts'
import { asError, messageOf, UsageFault } from '../../base/errors.ts'
import { replaceFile } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import type { IpAddress, Network } from '../../wire/ip-address.ts'
import { formatTcpRule } from '../../wire/tcprules.ts'
import { grantVariables } from '../decision.ts'
import { SiteRules } from './site-rules.ts'

/** A grant for the cdb. `until`: Unix seconds; undefined: without an end. */
export type ListedGrant = {
  readonly network: Network
  readonly until: number | undefined
  readonly login: string | undefined
}

export type CdbExportOptions = {
  /** The cdb for `tcpserver -x`. It is replaced atomically. */
  readonly path: string
  /** The text of the site's own rules, or empty. */
  readonly rulesPath: string
  readonly relayclientValue: string
  /**
   * Queries the store. In a cluster it calls `onProof` with the time by `monotonic` at which the
   * server was proven to be the primary. This time may be well before the answer.
   */
  readonly list: (signal: AbortSignal, onProof: (provenAt: number) => void) => Promise<readonly ListedGrant[]>
  /** Calls `changed` soon after the list has changed. The notification may be lost. */
  readonly onChange: (changed: () => void) => void
  readonly refusal: (ip: IpAddress) => string | undefined
  readonly timeoutMs: number
  /**
   * Time between two queries to the store. An expired grant is removed to the second, even if the
   * store is unavailable.
   */
  readonly intervalMs: number
  /**
   * In a cluster: time after the last proof at which the file loses its grants, because another
   * server may be the primary by then. Undefined: each grant stays until its end.
   */
  readonly unprovenMs: number | undefined
  readonly clock: Clock
  /** A clock that never steps, in milliseconds: measures the time since the last proof. */
  readonly monotonic: Clock
  readonly log: Log
}

/** tcpserver runs as another account. */
const FILE_MODE = 0o644
/** Time from a change to the next query, because further changes may follow. */
const SETTLE_MS = 20
/**
 * Longest time at the stop for removing the grants from the file, and the time between two tries.
 */
const STOP_MS = 5_000
const STOP_RETRY_MS = 200

/**
 * Keeps a tcprules cdb up to date for sites that use tcpserver.
 *
 * The file has two parts that fail independently. The grants are always the current ones: each
 * expiry and each change of the store leads to a new file. While the store does not answer, the
 * known grants stay until their end, in a cluster at most for `unprovenMs`. The site's rules are
 * the last valid ones: a rules text that is missing or invalid is logged and changes nothing. After
 * a restart the last valid rules come from the cdb.
 *
 * tcpserver does not check the end of a grant, so the grants of a killed gate stay in the file
 * until the gate starts again. Each start first writes the file without grants.
 */
export class CdbExport {
  #options: CdbExportOptions
  #grants: readonly ListedGrant[] = []
  /** Time of the last proof that the store is the primary, by the monotonic clock. */
  #provenAt = Number.NEGATIVE_INFINITY
  #site = SiteRules.NONE
  /** Version of the rules text that was read last, valid or not. */
  #siteVersion = ''
  #written: Buffer | undefined
  #timer: NodeJS.Timeout | undefined
  #endTimer: NodeJS.Timeout | undefined
  readonly #closing = new AbortController()
  /** True if the list has changed since the last query. */
  #isDue = false
  /** Milliseconds that the last query took. */
  #took = 0
  #round: Promise<void> | undefined
  /** The last logged error about the rules and about the file, so that each is logged once. */
  readonly #complaints = new Map<'rules' | 'file', string>()

  constructor(options: CdbExportOptions) {
    this.#options = options
  }

  /**
   * Writes the file without grants, then with them, and keeps it up to date. If the store is
   * unavailable, the file has the site's rules only. Throws UsageFault if the file cannot be
   * written.
   */
  async start(): Promise<void> {
    const { path } = this.#options
    this.#site = SiteRules.recover(path) ?? SiteRules.NONE
    try {
      replaceFile(path, this.#format(), FILE_MODE)
    } catch (error) {
      // The grants of a killed gate must not stay in the file, even if the start fails for another
      // reason.
      this.#tryToOverwrite()
      const why = messageOf(error)
      throw new UsageFault(`cannot write wrap.tcprules_cdb ${path}: ${why}. Give its directory to wrap.user`, error)
    }
    await this.#runRound()
    this.#options.onChange(() => this.#changed())
  }

  /** Applies the options from the next round on. The path stays the same. */
  reconfigure(options: CdbExportOptions): void {
    this.#options = { ...options, path: this.#options.path }
    options.onChange(() => this.#changed())
  }

  /**
   * Queries and writes immediately (SIGHUP, tests). Never rejects: failures are logged and retried.
   */
  async refresh(): Promise<void> {
    while (this.#round !== undefined) await this.#round
    await this.#runRound()
  }

  /**
   * Stops. The file is left without grants, because nothing would remove expired ones later. If
   * that fails for 5 s, it is logged.
   */
  async stop(): Promise<void> {
    this.#closing.abort()
    clearTimeout(this.#timer)
    const deadline = performance.now() + STOP_MS
    while (!this.#write()) {
      if (performance.now() > deadline) {
        const { path, log } = this.#options
        log.error('cdb_kept', { path, reason: 'the file cannot be written and still holds grants: remove it' })
        break
      }
      await sleep(STOP_RETRY_MS)
    }
  }

  #changed(): void {
    this.#isDue = true
    if (this.#round === undefined) this.#schedule()
  }

  /** Schedules the next query: immediately after a change, but limited to 10 % of the time. */
  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#isClosed) return
    const { intervalMs } = this.#options
    const wait = this.#isDue ? Math.max(SETTLE_MS, 9 * this.#took) : intervalMs
    this.#timer = setTimeout(() => void this.#runRound(), Math.min(intervalMs, wait))
  }

  /**
   * Runs one round, and schedules the next one. One round runs at a time, because the later answer
   * of two queries may be the older list.
   */
  #runRound(): Promise<void> {
    clearTimeout(this.#timer)
    this.#round = this.#update().finally(() => {
      this.#round = undefined
      this.#schedule()
    })
    return this.#round
  }

  /** Queries the store and writes the file. */
  async #update(): Promise<void> {
    const started = performance.now()
    this.#isDue = false
    await this.#fetch()
    if (!this.#isClosed) this.#write()
    this.#took = performance.now() - started
  }

  async #fetch(): Promise<void> {
    const { list, timeoutMs, monotonic, log } = this.#options
    let provenAt: number | undefined
    try {
      this.#grants = await list(AbortSignal.any([AbortSignal.timeout(timeoutMs), this.#closing.signal]), at => {
        provenAt = at
      })
      this.#provenAt = provenAt ?? monotonic()
    } catch (error) {
      if (this.#isClosed) return
      // The known grants stay until they expire or count no longer, and no new grant is added.
      log.error('decision_failed', {
        service: 'cdb',
        relay: false,
        reason: asError(error),
      })
    }
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted
  }

  /** Milliseconds for which the known grants count without a further proof. */
  #proofLeft(): number {
    const { unprovenMs = Infinity, monotonic } = this.#options
    return this.#provenAt + unprovenMs - monotonic()
  }

  #live(): readonly ListedGrant[] {
    if (this.#isClosed || this.#proofLeft() <= 0) return []
    const now = this.#options.clock() / 1000
    return this.#grants.filter(
      ({ network, until }) => (until ?? Infinity) > now && this.#options.refusal(network.base) === undefined,
    )
  }

  #format(grants = this.#live()): Buffer {
    this.#readSite()
    const { relayclientValue } = this.#options
    return this.#site.format(grants, ({ until, login }, rule) => {
      const granted = { RELAYCLIENT: relayclientValue, ...grantVariables({ until, login }) }
      return formatTcpRule({ allow: true, environment: { ...granted, ...rule?.environment } })
    })
  }

  /** Reads the site's rules. Invalid rules are not used: the last valid ones stay. */
  #readSite(): void {
    const { rulesPath, log } = this.#options
    if (rulesPath === '') {
      this.#site = SiteRules.NONE
      return
    }
    const version = versionOf(rulesPath)
    if (version === this.#siteVersion && version !== '') return
    try {
      this.#site = SiteRules.read(rulesPath)
      this.#siteVersion = version
      if (this.#complaints.delete('rules')) log.info('cdb_rules_accepted', { path: rulesPath })
    } catch (error) {
      this.#siteVersion = version
      this.#complain('rules', error, 'the last valid rules stay in force')
    }
  }

  /** Writes the current grants to the file. Returns false after a failure, which is logged. */
  #write(): boolean {
    const { path, log } = this.#options
    clearTimeout(this.#endTimer)
    const grants = this.#live()
    const file = this.#format(grants)
    let done = this.#written?.equals(file) === true
    if (!done) {
      try {
        replaceFile(path, file, FILE_MODE)
        done = true
        this.#complaints.delete('file')
      } catch (error) {
        this.#complain('file', error, 'give the directory of the file to wrap.user, or make room')
        done = this.#tryToOverwrite(file)
      }
      if (done) {
        this.#written = file
        log.info('cdb_written', { path, grants: grants.length })
      }
    }
    this.#awaitEnd(done, grants)
    return done
  }

  #tryToOverwrite(file = this.#format()): boolean {
    try {
      overwriteFile(this.#options.path, file)
      return true
    } catch {
      return false // The caller has logged the first failure, and retries.
    }
  }

  /**
   * Schedules the next write: at the next expiry of a grant in the file, when the grants count no
   * longer, or for a retry. A grant that expired during the write is still in the file, so it
   * counts too.
   */
  #awaitEnd(isWritten: boolean, grants: readonly ListedGrant[]): void {
    const { clock, intervalMs } = this.#options
    if (this.#isClosed) return
    const now = clock()
    const proofLeft = grants.length === 0 ? Infinity : this.#proofLeft()
    const firstEnd = grants.reduce((first, { until = Infinity }) => Math.min(first, until * 1000 - now), proofLeft)
    const wait = isWritten ? firstEnd : Math.min(firstEnd, intervalMs)
    if (wait === Infinity) return
    this.#endTimer = setTimeout(() => this.#write(), Math.min(Math.max(10, wait), MAX_TIMER_MS))
  }

  #complain(about: 'rules' | 'file', error: unknown, remedy: string): void {
    const { path, rulesPath, log } = this.#options
    const reason = messageOf(error)
    if (this.#complaints.get(about) === reason) return
    this.#complaints.set(about, reason)
    if (about === 'rules') log.error('cdb_rules_refused', { path: rulesPath, reason, remedy })
    else log.error('cdb_write_failed', { path, reason, remedy })
  }
}

/** Longest time that setTimeout accepts. */
const MAX_TIMER_MS = 2_147_483_647

function versionOf(path: string): string {
  try {
    const { ino, mtimeNs, size } = statSync(path, { bigint: true })
    return `${ino} ${mtimeNs} ${size}`
  } catch {
    return '' // Reading the file reports the reason.
  }
}

/**
 * Overwrites a file in place, if its directory cannot be written. A reader that has the file open
 * may see a mixture of old and new content. Throws if the file is missing or not writable.
 */
function overwriteFile(path: string, content: Uint8Array): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    for (let at = 0; at < content.length; ) at += writeSync(fd, content, at, content.length - at, at)
    ftruncateSync(fd, content.length)
  } finally {
    closeSync(fd)
  }
}
