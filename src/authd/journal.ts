/** The systemd journal as a login source: its entries, and the child that reads them. */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Log } from '../base/log.ts'
import { type ChildRun, SupervisedChild, watchForStop } from '../base/supervised-child.ts'
import type { SyslogLine } from '../syslog/syslog-line.ts'
import { LineSplitter } from '../wire/lines.ts'
import type { Counters } from './counters.ts'
import type { FilePlaces } from './file-places.ts'
import type { JournalEntry, LoginSources } from './login-sources.ts'

/** The latest time of a Date. */
const MAX_MICROSECONDS = 8.64e18

/** Parses one line of `journalctl -o json`; undefined for a line without an entry. */
export function parseJournalEntry(text: string): JournalEntry | undefined {
  let entry: unknown
  try {
    entry = JSON.parse(text)
  } catch {
    return undefined // journalctl prints whole entries; a partial one proves nothing
  }
  if (typeof entry !== 'object' || entry === null) return undefined
  const field = (name: string): string => {
    const value: unknown = Reflect.get(entry, name)
    return typeof value === 'string' ? value : ''
  }
  // The sender's kernel stamps a message when it is sent, journald when it is stored.
  const sent = Number(field('_SOURCE_REALTIME_TIMESTAMP'))
  const stored = Number(field('__REALTIME_TIMESTAMP'))
  const microseconds = sent > 0 ? Math.min(sent, stored) : stored
  const uid = field('_UID')
  const cursor = field('__CURSOR')
  if (!(microseconds > 0 && microseconds <= MAX_MICROSECONDS) || cursor === '') return undefined
  const at = Math.floor(microseconds / 1000)
  const line: SyslogLine = {
    form: 'journal',
    stamp: new Date(at).toISOString(),
    host: field('_HOSTNAME'),
    tag: field('SYSLOG_IDENTIFIER'),
    pid: field('SYSLOG_PID') || field('_PID'),
    message: field('MESSAGE'),
  }
  return { line, uid: /^\d{1,10}$/.test(uid) ? Number(uid) : undefined, unit: field('_SYSTEMD_UNIT'), cursor }
}

export type JournalOptions = {
  /** `journalctl`, and options of the site. */
  readonly command: readonly string[]
  readonly places: FilePlaces
  readonly sources: Pick<LoginSources, 'acceptJournalEntry'>
  readonly counters: Counters
  readonly log: Log
}

/** Longest entry. An entry has many fields; one of a POP3 daemon is far shorter. */
const MAX_ENTRY_OCTETS = 65_536
/** Reason of the end of a journalctl that authd has killed. */
const STOPPED = 'a signal had stopped it, so authd killed it'
/**
 * Entries with logins that are not stored yet. Above this number authd stops reading from
 * journalctl.
 */
const MAX_OPEN = 2000

/** A journalctl that was started. `ended`: the reason of its end. */
type Journalctl = ChildRun<string> & { readonly child: ChildProcess }

/**
 * Follows the systemd journal through a child `journalctl -f -o json`, from the last entry that was
 * processed.
 */
export class Journal {
  readonly #options: JournalOptions
  readonly #journalctl = new SupervisedChild<Journalctl>({
    launch: () => this.#launch(),
    ended: reason => this.#ended(reason),
  })
  /**
   * Cursors in the order of the journal. A position is saved when every entry before it is
   * processed.
   */
  readonly #open: { readonly cursor: string; settled: boolean }[] = []

  constructor(options: JournalOptions) {
    this.#options = options
    this.#journalctl.start()
  }

  /** Ends journalctl. Returns at once. */
  close(): void {
    void this.#journalctl.stop({
      after: 0,
      act: ({ child }) => {
        child.kill()
        // A stopped process ends only when it continues.
        child.kill('SIGCONT')
      },
    })
  }

  #launch(): Journalctl {
    const [program = 'journalctl', ...own] = this.#options.command
    const { cursor } = this.#options.places
    const place = cursor === undefined ? ['--lines=0'] : [`--after-cursor=${cursor}`]
    const child = spawn(program, [...own, '--follow', '--output=json', '--quiet', ...place], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const { promise: ended, resolve } = Promise.withResolvers<string>()
    const splitter = new LineSplitter(MAX_ENTRY_OCTETS)
    // If no descriptor is free, the runtime makes no streams and emits `error` later.
    const { stdout, stderr }: ChildProcess = child
    stdout?.on('data', (chunk: Buffer) => {
      const { lines, overlong } = splitter.push(chunk)
      this.#options.counters.overlong.journal += overlong
      for (const line of lines) this.#entry(line)
      if (this.#open.length > MAX_OPEN) stdout.pause()
    })
    let complaint = ''
    stderr?.on('data', (chunk: Buffer) => {
      complaint = `${complaint}${chunk.toString('utf8')}`.slice(-500)
    })
    // journalctl prints nothing while nothing is logged, so only its state shows that a signal has
    // stopped it.
    const watch = watchForStop(child.pid, () => {
      complaint = STOPPED
      child.kill('SIGKILL')
    })
    void ended.then(() => watch.end())
    child.on('error', error => resolve(error.message))
    child.on('exit', (code, signal) => resolve(`${complaint.trim() || 'no message'} (${signal ?? code})`))
    return { child, ended }
  }

  #ended(reason: string): void {
    if (this.#journalctl.isStopped) return
    this.#options.log.warn('journal_ended', { reason, in_ms: this.#journalctl.restart() })
  }

  #entry(text: string): void {
    const entry = parseJournalEntry(text)
    if (entry === undefined) return
    const place = { cursor: entry.cursor, settled: false }
    this.#open.push(place)
    const settled = (): void => {
      place.settled = true
      this.#advance()
    }
    if (!this.#options.sources.acceptJournalEntry(entry, settled)) settled()
  }

  #advance(): void {
    let done = 0
    while (this.#open[done]?.settled === true) done += 1
    const last = this.#open.splice(0, done).at(-1)
    if (last !== undefined) this.#options.places.cursor = last.cursor
    if (this.#open.length <= MAX_OPEN / 2) this.#journalctl.run?.child.stdout?.resume()
  }
}
