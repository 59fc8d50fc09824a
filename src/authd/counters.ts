/** Counters of authd since its start. */

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
