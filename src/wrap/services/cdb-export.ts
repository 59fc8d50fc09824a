import {
  closeSync,
  constants,
  ftruncateSync,
  openSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../base/clock.ts'
import { messageOf, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { IpAddress, Network } from '../../wire/ip-address.ts'
import { formatTcpRule } from '../../wire/tcprules.ts'
import { grantVariables } from '../decision.ts'
import { SiteRules } from './site-rules.ts'

/** A grant as the cdb knows it. `until`: Unix seconds; undefined: without end. */
export type ListedGrant = {
  readonly network: Network
  readonly until: number | undefined
  readonly login: string | undefined
}

export type CdbExportOptions = {
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
  /**
   * How often the store is asked. A grant that ends is taken out to the second even if the store is
   * away.
   */
  readonly intervalMs: number
  readonly clock: Clock
  readonly log: Log
}

/** Milliseconds after a change: others may follow it. */
const SOON = 20
/**
 * At the end: how long, and how often, it is tried to take the grants out of a file that cannot be
 * written.
 */
const STOP_MS = 5_000
const STOP_RETRY_MS = 200

/**
 * Keeps a tcprules cdb up to date for sites that stay with tcpserver.
 *
 * The file is made of two parts that fail independently. The grants are those of now, always: each
 * end and each change of the store leads to a new file. The site's rules are the last good ones: a
 * rules text that is missing or has a fault is logged and changes nothing. After a restart the last
 * good rules are those in the cdb itself. tcpserver has no way to see that a grant has ended, so a
 * gate that is killed leaves its grants in the file until it is started again; the first thing that
 * a start does is to write the file without grants.
 */
export class CdbExport {
  #options: CdbExportOptions
  #grants: readonly ListedGrant[] = []
  #site = SiteRules.NONE
  /** State of the rules text that was read last, good or not. */
  #siteVersion = ''
  #written: Buffer | undefined
  #timer: NodeJS.Timeout | undefined
  #endTimer: NodeJS.Timeout | undefined
  readonly #closing = new AbortController()
  /** Told that the list has changed since the last look. */
  #isDue = false
  /** Milliseconds that the last look took. */
  #took = 0
  #round: Promise<void> | undefined
  /** What was logged last about the rules and about the file, so that it is logged once. */
  readonly #complaints = new Map<'rules' | 'file', string>()

  constructor(options: CdbExportOptions) {
    this.#options = options
  }

  /**
   * Writes the file without grants, then with them, and keeps it; a store that is away only leaves
   * the site's rules. Throws UsageFault if it cannot be written.
   */
  async start(): Promise<void> {
    const { path } = this.#options
    this.#site = SiteRules.recover(path) ?? SiteRules.NONE
    try {
      replaceFile(path, this.#format())
    } catch (error) {
      // What a gate that was killed has left behind must not stay, whatever else is wrong.
      this.#tryToOverwrite()
      const why = messageOf(error)
      throw new UsageFault(`cannot write wrap.tcprules_cdb ${path}: ${why}. Give its directory to wrap.user`, error)
    }
    await this.#look()
    this.#options.onChange(() => this.#changed())
    this.#schedule()
  }

  /** From the next round on; the path stays. */
  reconfigure(options: CdbExportOptions): void {
    this.#options = { ...options, path: this.#options.path }
    options.onChange(() => this.#changed())
  }

  /**
   * Asks and writes at once (SIGHUP, tests). Never rejects: what cannot be had or written is
   * logged, and tried again.
   */
  async refresh(): Promise<void> {
    await this.#round
    await this.#look()
  }

  /**
   * Stops. The file is left without grants, because nothing would take them out any more; if that
   * cannot be done within 5 s, it is logged.
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

  /**
   * For the next look: at once when the list has changed, but no more than a tenth of the time goes
   * into looking for that.
   */
  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#isClosed) return
    const { intervalMs } = this.#options
    const wait = this.#isDue ? Math.max(SOON, 9 * this.#took) : intervalMs
    this.#timer = setTimeout(
      () => {
        this.#round = this.#look().finally(() => {
          this.#round = undefined
          this.#schedule()
        })
      },
      Math.min(intervalMs, wait),
    )
  }

  async #look(): Promise<void> {
    const started = performance.now()
    this.#isDue = false
    await this.#fetch()
    if (!this.#isClosed) this.#write()
    this.#took = performance.now() - started
  }

  async #fetch(): Promise<void> {
    const { list, timeoutMs, log } = this.#options
    try {
      this.#grants = await list(AbortSignal.any([AbortSignal.timeout(timeoutMs), this.#closing.signal]))
    } catch (error) {
      if (this.#isClosed) return
      // What we know goes on to expire; nobody new gets in.
      log.error('decision_failed', {
        service: 'cdb',
        relay: false,
        reason: error instanceof Error ? error : String(error),
      })
    }
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted
  }

  #live(): readonly ListedGrant[] {
    if (this.#isClosed) return []
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

  /**
   * Takes the site's rules if they are good and have changed; otherwise those that were good last
   * stay.
   */
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
      this.#complain('rules', 'cdb_rules_refused', error, 'the rules that were good last stay in force')
    }
  }

  /** Brings the file to what is true now; false if that failed, which is logged and tried again. */
  #write(): boolean {
    const { path, log } = this.#options
    clearTimeout(this.#endTimer)
    const grants = this.#live()
    const file = this.#format(grants)
    let done = this.#written?.equals(file) === true
    if (!done) {
      try {
        replaceFile(path, file)
        done = true
        this.#complaints.delete('file')
      } catch (error) {
        this.#complain('file', 'cdb_write_failed', error, 'give the directory of the file to wrap.user, or make room')
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
      return false // The caller has said why the file cannot be replaced, and tries again.
    }
  }

  /**
   * Waits for the next end of a grant in the file, or for the next try if the file could not be
   * written. A grant that ended
   * while the file was written has a wait of its own: it stands in the file.
   */
  #awaitEnd(isWritten: boolean, grants: readonly ListedGrant[]): void {
    const { clock, intervalMs } = this.#options
    if (this.#isClosed) return
    const now = clock()
    const firstEnd = grants.reduce((first, { until = Infinity }) => Math.min(first, until * 1000 - now), Infinity)
    const wait = isWritten ? firstEnd : Math.min(firstEnd, intervalMs)
    if (wait === Infinity) return
    this.#endTimer = setTimeout(() => this.#write(), Math.min(Math.max(10, wait), MAX_TIMER_MS))
  }

  #complain(
    about: 'rules' | 'file',
    event: 'cdb_rules_refused' | 'cdb_write_failed',
    error: unknown,
    remedy: string,
  ): void {
    const { path, log } = this.#options
    const reason = messageOf(error)
    if (this.#complaints.get(about) === reason) return
    this.#complaints.set(about, reason)
    const fields = { path, reason, remedy }
    if (event === 'cdb_rules_refused') log.error('cdb_rules_refused', fields)
    else log.error('cdb_write_failed', fields)
  }
}

/** What setTimeout can wait. */
const MAX_TIMER_MS = 2_147_483_647

function versionOf(path: string): string {
  try {
    const { ino, mtimeNs, size } = statSync(path, { bigint: true })
    return `${ino} ${mtimeNs} ${size}`
  } catch {
    return '' // The reader finds out why.
  }
}

/**
 * Replaces a file in one step. Throws, and leaves the file as it was, if its directory cannot be
 * written or the disk is full.
 */
function replaceFile(path: string, content: Uint8Array): void {
  const temporary = `${path}.tmp.${process.pid}`
  try {
    writeFileSync(temporary, content, { mode: 0o644 })
    renameSync(temporary, path)
  } catch (error) {
    try {
      unlinkSync(temporary)
    } catch {
      // It was never made.
    }
    throw error
  }
}

/**
 * Writes over a file where it stands, for a directory that cannot be written. A reader that has it
 * open at this moment may find neither the old content nor the new one. Throws if the file is
 * missing or may not be written.
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
