/** The numbers of authd for Prometheus. Only an authd with `metrics_listen` loads this module. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { ALARM_RULES } from '../grants/alarms.ts'
import type { Counters } from './counters.ts'

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
