import { UsageFault } from '../../base/exit-status.ts'
import { parseDurationIn } from '../../settings/duration.ts'
import type { Environment } from '../../ucspi/environment.ts'

/** The settings of the exec door, as far as it does not ask the database itself. */
export type ExecSettings = {
  readonly qmaildir: string
  readonly qmail_smtpd_noauth: string
  readonly relayclient_value: string
  /** Seconds. */
  readonly wrap_timeout: number
  /** Path of the question socket; empty: ask the database. */
  readonly ask: string
}

/**
 * The same as in src/settings/wrap.ts (a test compares them): that table costs three times as much
 * to load as this program may take.
 */
export const EXEC_DEFAULTS: ExecSettings = {
  qmaildir: '/var/qmail',
  qmail_smtpd_noauth: 'qmail-smtpd.noauth',
  relayclient_value: '',
  wrap_timeout: 3,
  ask: '',
}

/** Name of each setting's environment variable. */
const VARIABLES = {
  qmaildir: 'QMAILDIR',
  qmail_smtpd_noauth: 'QMAIL_SMTPD_NOAUTH',
  relayclient_value: 'RELAYCLIENT_VALUE',
  wrap_timeout: 'WRAP_TIMEOUT',
  ask: 'WRAP_ASK',
} as const

/**
 * Reads the few settings that every connection needs: from the environment, and from the `[wrap]`
 * table of a settings file unless WRAP_ASK is in the
 * environment (reading it costs a quarter of an empty program's start). `file` undefined: there is
 * none. Throws UsageFault.
 */
export async function readExecSettings(file: string | undefined, environment: Environment): Promise<ExecSettings> {
  const isToldAll = file === undefined || environment[VARIABLES.ask] !== undefined
  const table = isToldAll ? {} : (await import('./wrap-table.ts')).readWrapTable(file)
  const written = (name: keyof ExecSettings): unknown =>
    environment[VARIABLES[name]] ?? table[name] ?? EXEC_DEFAULTS[name]
  const text = (name: keyof ExecSettings): string => {
    const value = written(name)
    if (typeof value !== 'string') throw new UsageFault(`wrap.${name} must be a text`)
    return value
  }
  const seconds = secondsOf(written('wrap_timeout'))
  if (!(seconds >= 1 && seconds <= 30))
    throw new UsageFault('wrap.wrap_timeout must be a duration from "1s" to "30s" in whole seconds')
  const ask = text('ask')
  if (ask !== '' && !ask.startsWith('unix:/')) throw new UsageFault('wrap.ask must be "unix:/PATH"')
  return {
    qmaildir: text('qmaildir'),
    qmail_smtpd_noauth: text('qmail_smtpd_noauth'),
    relayclient_value: text('relayclient_value'),
    wrap_timeout: seconds,
    ask: ask.slice('unix:'.length),
  }
}

/** NaN for a value that is no duration in whole seconds. */
function secondsOf(written: unknown): number {
  if (typeof written === 'number') return Number.isInteger(written) ? written : Number.NaN
  if (typeof written !== 'string') return Number.NaN
  return /^\d+$/.test(written) ? Number(written) : (parseDurationIn('s', written) ?? Number.NaN)
}
