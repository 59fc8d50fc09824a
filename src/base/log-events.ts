/**
 * Every event that a program of auth-relay logs: its name, levels, fields and meaning, and the
 * action that it needs.
 *
 * The log accepts only names, levels and fields of these tables (log.ts). docs/LOG-EVENTS.md is
 * generated from them by scripts/generate/log-events.ts. A name is `object_participle`; the cause
 * stands in the field `reason`.
 */

import { AUTHD, GATE } from './log-events/grant-events.ts'
import { ALERTS, DEMO, SEVERAL_PROGRAMS, STACK } from './log-events/host-events.ts'
import { POPUP_AND_POP3D, SSLWRAP } from './log-events/pop3-events.ts'
import type { LogEventRows, LogLevel } from './log-events/row.ts'

export const LOG_EVENTS = {
  ...SEVERAL_PROGRAMS,
  ...POPUP_AND_POP3D,
  ...SSLWRAP,
  ...AUTHD,
  ...GATE,
  ...STACK,
  ...ALERTS,
  ...DEMO,
} as const

/** The same by program, in the order of the document. */
export const LOG_EVENT_SECTIONS: readonly { readonly title: string; readonly rows: LogEventRows }[] = [
  { title: 'Several programs', rows: SEVERAL_PROGRAMS },
  { title: 'popup and pop3d', rows: POPUP_AND_POP3D },
  { title: 'sslwrap', rows: SSLWRAP },
  { title: 'authd', rows: AUTHD },
  { title: 'wrap (gate)', rows: GATE },
  { title: 'auth-relay up, embedded database, status page', rows: STACK },
  { title: 'alerts', rows: ALERTS },
  { title: 'SMTP server of the demo', rows: DEMO },
]

type Rows = typeof LOG_EVENTS

export type LogEvent = keyof Rows

/** Events that the table permits at a level. */
export type LogEventAt<Level extends LogLevel> = {
  [Event in LogEvent]: Level extends Rows[Event]['levels'][number] ? Event : never
}[LogEvent]

/** The texts of the field `reason` of an event: the fixed ones, or `Free`. */
export type LogReasonOf<Event extends LogEvent, Free> = Rows[Event] extends {
  readonly reasons: readonly (infer Reason extends string)[]
}
  ? Reason | undefined
  : Free

/** Names of the fields of an event. */
export type LogFieldOf<Event extends LogEvent> = Rows[Event]['fields'][number]
