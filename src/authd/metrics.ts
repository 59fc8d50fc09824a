/** Counters of authd, and their names for Prometheus. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { ALARM_RULES } from '../grants/alarms.ts'
import { DROP_REASONS, type DropReason } from '../syslog/login-recognizer.ts'
import { type LastLine, lastLineKey } from '../wire/last-lines.ts'
import type { RelayVerdict } from '../wire/usage-event.ts'

/** Sources of logins. */
export const SOURCES = ['socket', 'fifo', 'tcp', 'file', 'journal'] as const
export type Source = (typeof SOURCES)[number]

/** Results of a login event. */
export const EVENT_VERDICTS = ['committed', 'queued', 'refused', 'replaced', 'dropped'] as const
export type EventVerdict = (typeof EVENT_VERDICTS)[number]

/**
 * Number of distinct tags that are counted by name. Further tags are counted together, so that no
 * sender of lines can fill the memory.
 */
const MAX_TAGS = 50

/** All counters since the start. They are plain numbers, because each line changes them. */
export class Counters {
  /** Lines read, by source; login events on the socket are not lines. */
  readonly lines = perSource()
  /** Lines longer than any POP3 daemon's, dropped unread. */
  readonly overlong = perSource()
  /** Login events, by source and result. */
  readonly events = new Map<Source, Map<EventVerdict, number>>(
    SOURCES.map(source => [source, new Map(EVENT_VERDICTS.map(verdict => [verdict, 0]))]),
  )
  /** True logins of lines that grant nothing, by source and reason. */
  readonly dropped = new Map<Source, Map<DropReason, number>>(
    SOURCES.filter(source => source !== 'socket').map(source => [
      source,
      new Map(DROP_REASONS.map(reason => [reason, 0])),
    ]),
  )
  /** The newest line of each source that has had one, for auth-relay status; by lastLineKey. */
  readonly lastLines = new Map<string, LastLine>()
  /** Lines that prove no login, by tag. */
  readonly ignored = new Map<string, number>()
  /** Times the FIFO was found full: syslogd may have dropped lines then. */
  fifoFull = 0
  /** Announcements on the socket that could not be parsed. */
  badAnnouncements = 0
  /** Reports of used grants, from the gate. */
  usageEvents = 0
  /** Decisions that the services of the gate reported. */
  readonly decisions: Record<RelayVerdict, number> = { relayed: 0, refused: 0, undecided: 0, never: 0 }
  /** Connections to a socket of authd from accounts that are not permitted. */
  foreignPeers = 0
  commits = 0
  commitFailures = 0
  sweeps = 0
  swept = 0
  sweepFailures = 0

  keepLastLine(at: number, text: string, source: Source, path?: string): void {
    this.lastLines.set(lastLineKey(source, path), { at, text })
  }

  countEvent(source: Source, verdict: EventVerdict): void {
    const verdicts = this.events.get(source)
    verdicts?.set(verdict, (verdicts.get(verdict) ?? 0) + 1)
  }

  countDropped(source: Source, reason: DropReason): void {
    const reasons = this.dropped.get(source)
    reasons?.set(reason, (reasons.get(reason) ?? 0) + 1)
  }

  countIgnored(tag: string | undefined): void {
    const known = tag ?? '-'
    const key = this.ignored.has(known) || this.ignored.size < MAX_TAGS ? known : 'other'
    this.ignored.set(key, (this.ignored.get(key) ?? 0) + 1)
  }
}

type PerSource = Record<Source, number>
const perSource = (): PerSource => ({ socket: 0, fifo: 0, tcp: 0, file: 0, journal: 0 })

export type MetricsOptions = {
  readonly counters: Counters
  readonly queue: { readonly length: number; readonly storeIsDown: boolean }
  /** True if the primary is known. */
  readonly databaseIsUp: () => boolean
  readonly countLive: () => Promise<number>
  /** Alarms that last, by rule. */
  readonly countAlarms: () => Promise<ReadonlyMap<string, number>>
}

/**
 * The numbers of authd for Prometheus. Counters of lines are read at each scrape instead of being
 * kept twice.
 */
export class Metrics {
  readonly registry = new Registry()
  readonly #commits: Histogram

  constructor({ counters, queue, databaseIsUp, countLive, countAlarms }: MetricsOptions) {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry, prefix: 'authd_' })
    this.#commits = new Histogram({
      name: 'authd_commit_seconds',
      help: 'Time one commit of logins took.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
      registers,
    })
    const counter = <Label extends string>(
      name: string,
      help: string,
      labelNames: readonly Label[],
      read: () => Iterable<readonly [Partial<Record<Label, string>>, number]>,
    ): Counter =>
      new Counter({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset()
          for (const [labels, value] of read()) this.inc(labels, value)
        },
      })
    counter('authd_events_total', 'Login events by source and result.', ['source', 'verdict'], () =>
      [...counters.events].flatMap(([source, verdicts]) =>
        [...verdicts].map(([verdict, n]) => [{ source, verdict }, n] as const),
      ),
    )
    counter('authd_lines_total', 'Log lines read.', ['source'], () => bySource(counters.lines))
    counter('authd_overlong_lines_total', 'Log lines dropped for their length.', ['source'], () =>
      bySource(counters.overlong),
    )
    counter(
      'authd_dropped_logins_total',
      'True logins of log lines that grant nothing, by source and reason.',
      ['source', 'reason'],
      () =>
        [...counters.dropped].flatMap(([source, reasons]) =>
          [...reasons].map(([reason, n]) => [{ source, reason }, n] as const),
        ),
    )
    counter('authd_ignored_lines_total', 'Log lines that prove no login, by tag.', ['tag'], () =>
      [...counters.ignored].map(([tag, n]) => [{ tag }, n] as const),
    )
    counter('authd_fifo_full_total', 'Times the FIFO was found full: lines may be lost.', [], () => [
      [{}, counters.fifoFull],
    ])
    counter('authd_bad_announcements_total', 'Announcements that could not be read.', [], () => [
      [{}, counters.badAnnouncements],
    ])
    counter('authd_foreign_peers_total', 'Connections from accounts that are not permitted.', [], () => [
      [{}, counters.foreignPeers],
    ])
    counter('authd_commit_failures_total', 'Commits that failed.', [], () => [[{}, counters.commitFailures]])
    counter('authd_sweeps_total', 'Sweeps of ended grants.', [], () => [[{}, counters.sweeps]])
    counter('authd_swept_grants_total', 'Expired grants that were removed.', [], () => [[{}, counters.swept]])
    counter('authd_usage_events_total', 'Usage events that gates reported.', [], () => [[{}, counters.usageEvents]])
    counter('authd_gate_decisions_total', 'Decisions of the gate that it reported.', ['verdict'], () =>
      Object.entries(counters.decisions).map(([verdict, n]) => [{ verdict }, n] as const),
    )
    new Gauge({
      name: 'authd_last_line_timestamp_seconds',
      help: 'When the newest line or login of a source was read, in seconds since 1970.',
      labelNames: ['source'],
      registers,
      collect() {
        this.reset()
        for (const [source, { at }] of counters.lastLines) this.set({ source }, at / 1000)
      },
    })
    new Gauge({
      name: 'authd_alarms_open',
      help: 'Alarms that have not ended, by rule; none while the database is unreachable.',
      labelNames: ['rule'],
      registers,
      async collect() {
        this.reset()
        const open = await countAlarms().catch(() => undefined)
        for (const { name: rule, isOfDatabase } of ALARM_RULES)
          if (open !== undefined && isOfDatabase) this.set({ rule }, open.get(rule) ?? 0)
      },
    })
    const gauge = (name: string, help: string, read: () => number | Promise<number>): Gauge =>
      new Gauge({
        name,
        help,
        registers,
        async collect() {
          this.set(await read())
        },
      })
    gauge('authd_queue_length', 'Logins not yet stored.', () => queue.length)
    gauge('authd_database_up', '1 if the database takes writes.', () => (databaseIsUp() && !queue.storeIsDown ? 1 : 0))
    gauge('authd_grants_live', 'Grants in force; NaN while the database is unreachable.', () =>
      countLive().catch(() => Number.NaN),
    )
  }

  observeCommit(milliseconds: number): void {
    this.#commits.observe(milliseconds / 1000)
  }
}

const bySource = (numbers: Readonly<Record<string, number>>) =>
  Object.entries(numbers).map(([source, n]) => [{ source }, n] as const)
