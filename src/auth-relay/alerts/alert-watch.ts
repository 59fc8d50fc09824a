/**
 * The process `alerts`: when alarms are computed, reported, and closed by a block. grants/alarms.ts
 * has the rules.
 */

import { messageOf, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import {
  ALARM_RULES,
  type AlarmChange,
  type AlarmFact,
  type AlarmLimits,
  type AlarmRule,
  type Alarms,
} from '../../grants/alarms.ts'
import type { BlockTarget, GrantAdmin } from '../../grants/grant-store.ts'
import type { Settings } from '../../settings/settings.ts'
import { parseIpAddress, parseNetwork } from '../../wire/ip-address.ts'
import type { AlertMessage, Reporter } from './reporters.ts'

export type AlertWatchOptions = {
  readonly alarms: Pick<Alarms, 'look' | 'take' | 'giveBack'>
  readonly admin: Pick<GrantAdmin, 'block'>
  /** Logins of a device. */
  readonly loginsOf: (device: string) => Promise<readonly string[]>
  readonly reporters: readonly Reporter[]
  readonly limits: AlarmLimits
  readonly off: readonly string[]
  readonly close: readonly string[]
  /** Seconds. */
  readonly closeFor: number
  /** Facts about this host: the certificates that it shows. */
  readonly facts: () => Promise<readonly AlarmFact[]>
  readonly host: string
  readonly log: Log
  readonly now: () => Date
}

/** Number of queries that fail in a row until the database counts as unreachable. */
const UNREACHABLE_AFTER = 3
const UNREACHABLE = 'database_unreachable'

/** The rule of that name. The rule of a newer program has only its name. */
export const ruleNamed = (name: string): AlarmRule =>
  ALARM_RULES.find(rule => rule.name === name) ?? {
    name,
    summary: `The rule ${name} has found an alarm.`,
    remedy: 'auth-relay alerts',
    severity: 'warning',
    isOfDatabase: true,
  }

/** @throws UsageFault if alerts.off or alerts.close names a rule that has no such use. */
export function checkRuleNames({ alerts: { off, close } }: Pick<Settings, 'alerts'>): void {
  for (const [setting, names] of Object.entries({ off, close }))
    for (const name of names)
      if (!ALARM_RULES.some(rule => rule.name === name))
        throw new UsageFault({
          setting: `alerts.${setting}`,
          fact: `there is no rule ${name}`,
          remedy: 'auth-relay alerts --rules lists the rules',
        })
  for (const name of close)
    if (ruleNamed(name).closes === undefined)
      throw new UsageFault({
        setting: 'alerts.close',
        fact: `an alarm of ${name} names nothing that a block could close`,
        remedy: 'remove it',
      })
}

/** Computes the alarms of the site at each look, and reports starts and ends. */
export class AlertWatch {
  readonly #options: AlertWatchOptions
  #failures = 0
  /** Time since which the database is unreachable, and whether this was reported. */
  #unreachable: { readonly since: Date; isReported: boolean } | undefined
  #isLooking = false
  /** Reported starts whose block could not be stored; each look tries again. */
  readonly #unclosed: AlarmChange[] = []

  constructor(options: AlertWatchOptions) {
    this.#options = options
  }

  /** Computes the alarms once. Never rejects, because the next call tries again. */
  async look(): Promise<void> {
    if (this.#isLooking) return
    this.#isLooking = true
    try {
      await this.#lookAndReport()
      this.#failures = 0
      await this.#databaseIsBack()
    } catch (error) {
      this.#failures += 1
      this.#options.log.error('alarm_look_failed', { reason: messageOf(error) })
      if (this.#failures >= UNREACHABLE_AFTER) await this.#databaseIsUnreachable(messageOf(error))
    } finally {
      this.#isLooking = false
    }
  }

  async #lookAndReport(): Promise<void> {
    const { alarms, limits, off, facts } = this.#options
    await alarms.look(limits, { facts: await facts(), off })
    const failures: unknown[] = []
    const close = (change: AlarmChange): Promise<void> =>
      this.#close(change).catch((error: unknown) => {
        this.#unclosed.push(change)
        failures.push(error)
      })
    for (const change of this.#unclosed.splice(0)) await close(change)
    // `take` has claimed all of them, so a fault of one must not leave the others unreported.
    for (const change of await alarms.take()) {
      const isReported = await this.#report(messageFor(change, this.#options.host))
      if (!isReported) await alarms.giveBack(change).catch((error: unknown) => failures.push(error))
      else if (change.state === 'start') await close(change)
    }
    if (failures.length > 0) throw failures[0]
  }

  /**
   * False if all ways to report failed. One successful way is enough, so that no way reports an
   * alarm twice.
   */
  async #report(message: AlertMessage): Promise<boolean> {
    const { reporters, log } = this.#options
    const { rule, state, subject, detail } = message
    if (state === 'start') log.warn('alarm_started', { rule, subject, detail })
    else log.info('alarm_ended', { rule, subject, detail })
    let isReported = reporters.length === 0
    for (const { name, send } of reporters) {
      try {
        await send(message)
        isReported = true
      } catch (error) {
        log.error('alarm_unreported', { rule, by: name, reason: messageOf(error) })
      }
    }
    return isReported
  }

  async #close({ alarm: { rule, subject, detail } }: AlarmChange): Promise<void> {
    const { admin, close, closeFor, log, loginsOf } = this.#options
    if (!close.includes(rule)) return
    const { closes } = ruleNamed(rule)
    const logins = closes === 'login' ? [subject] : closes === 'device' ? await loginsOf(subject) : []
    const network = closes === 'network' ? networkOf(subject) : undefined
    const targets: BlockTarget[] = [
      ...logins.map(login => ({ kind: 'login', login }) as const),
      ...(network === undefined ? [] : [{ kind: 'network', network } as const]),
    ]
    for (const target of targets) {
      await admin.block(target, { forSeconds: closeFor, reason: `${rule}: ${detail}`, owner: 'alerts' })
      log.warn('alarm_closed', { rule, subject, block_seconds: closeFor })
    }
  }

  async #databaseIsUnreachable(reason: string): Promise<void> {
    const { now, off } = this.#options
    this.#unreachable ??= { since: now(), isReported: off.includes(UNREACHABLE) }
    if (!this.#unreachable.isReported)
      this.#unreachable.isReported = await this.#report(this.#unreachableMessage('start', reason))
  }

  async #databaseIsBack(): Promise<void> {
    const { off } = this.#options
    if (this.#unreachable?.isReported === true && !off.includes(UNREACHABLE))
      await this.#report(this.#unreachableMessage('end', 'it answers again'))
    this.#unreachable = undefined
  }

  #unreachableMessage(state: 'start' | 'end', detail: string): AlertMessage {
    const { host, now } = this.#options
    const { summary, remedy, severity } = ruleNamed(UNREACHABLE)
    const since = this.#unreachable?.since ?? now()
    return {
      rule: UNREACHABLE,
      state,
      subject: host,
      detail,
      summary,
      remedy,
      severity,
      since,
      until: state === 'end' ? now() : null,
      host,
    }
  }
}

/** A message about a start or an end. */
function messageFor({ state, alarm }: AlarmChange, host: string): AlertMessage {
  const { rule, subject, detail, since, until } = alarm
  const { summary, remedy, severity } = ruleNamed(rule)
  return { rule, state, subject, detail, summary, remedy, severity, since, until: state === 'end' ? until : null, host }
}

function networkOf(text: string): ReturnType<typeof parseNetwork> {
  const ip = parseIpAddress(text)
  return parseNetwork(ip ?? text)
}
