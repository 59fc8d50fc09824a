/** The verb `alerts` with its actions: list, test, and the daemon that computes the alarms. */
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { Command } from 'commander'
import { systemClock } from '../../base/clock.ts'
import { messageOf, UsageFault } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
import { openDatabase } from '../../database/database.ts'
import { ALARM_RULES, type AlarmFact, type AlarmLimits, Alarms } from '../../grants/alarms.ts'
import { DeviceAdmin } from '../../grants/devices/device-admin.ts'
import { createGrantAdmin } from '../../grants/grant-admin.ts'
import { policyOf } from '../../grants/grant-policy.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import { dropPrivileges, idsOf, isRoot } from '../../process/privileges.ts'
import { databaseConnection, databaseGroups } from '../../settings/database-connection.ts'
import { restartFields } from '../../settings/reload.ts'
import { loadDaemonSettings, loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { AlertWatch, checkRuleNames, ruleNamed } from '../alerts/alert-watch.ts'
import { reportersOf } from '../alerts/reporters.ts'
import { shownCertificates } from '../certificates.ts'
import { commandConnection, withDatabase } from '../site-database.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/terminal.ts'
import type { Verb } from '../verb.ts'
import { withActions, withConfigOption } from '../verb.ts'

/**
 * `auth-relay alerts`: lists the alarms, sends test reports, or computes and reports alarms as a
 * daemon.
 */
export const alerts: Verb = (program, { environment, print }, choose) => {
  const verb = program
    .command('alerts')
    .description('list the alarms, report each rule as a test, or compute and report alarms as a daemon')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay alerts               the same as auth-relay alerts list
  auth-relay alerts test          sends each kind of alarm, marked as a test
  auth-relay alerts --rules

An alarm has one start and one end. It ends when its rule has found nothing for 30 minutes.`,
    )
  const actionNamed = (name: string, about: string): Command => withConfigOption(new Command(name)).description(about)
  const load = ({ config }: CommonOptions): Settings => loadSettingsFile(resolve(config), environment).settings
  const listAction = actionNamed('list', 'list the alarms; the default')
    .option('--days <number>', 'days for which alarms that ended are shown', '7')
    .option('--rules', 'print the rules with their remedies')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExit status 1 if an alarm lasts.')
    .action((_: object, command: Command) => {
      const options: ListOptions = command.optsWithGlobals()
      choose({ kind: 'command', run: () => list(load(options), options, print) })
    })
  const testAction = actionNamed('test', 'report one start and one end of each rule, marked as a test')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nThe command stores nothing and blocks nothing. Exit status 1 if a way to report failed.')
    .action((_: object, command: Command) => {
      const options: TestOptions = command.optsWithGlobals()
      choose({ kind: 'command', run: () => testReporters(load(options), options, print) })
    })
  const runAction = actionNamed('run', 'compute and report alarms as a daemon')
    .addHelpText(
      'after',
      `
A supervisor starts it; auth-relay up does so if [alerts] names a recipient. It computes the
rules at the interval alerts.every, and without it no alarm begins.`,
    )
    .action((_: object, command: Command) => {
      const { config }: CommonOptions = command.optsWithGlobals()
      choose({
        kind: 'daemon',
        name: 'alerts',
        start: async () => startAlerts(() => loadDaemonSettings('alerts', resolve(config), environment)),
      })
    })
  withActions(verb, [listAction, testAction, runAction], 'list')
}

type CommonOptions = { readonly config: string }
type TestOptions = CommonOptions & { readonly json?: true }
type ListOptions = TestOptions & { readonly days: string; readonly rules?: true }

async function list(
  settings: Settings,
  { days, rules, json }: ListOptions,
  print: (text: string) => void,
): Promise<number> {
  if (!/^\d{1,4}$/.test(days))
    throw new UsageFault(`--days ${days} is not a number of days: write a whole number, such as 7`)
  if (rules === true) {
    const off = new Set(settings.alerts.off)
    if (json === true) print(`${JSON.stringify(ALARM_RULES.map(rule => ({ ...rule, isOn: !off.has(rule.name) })))}\n`)
    else
      for (const { name, summary, remedy } of ALARM_RULES)
        print(`${name}${off.has(name) ? ' (off)' : ''}\n  ${summary}\n  to do: ${remedy}\n`)
    return 0
  }
  const found = await withDatabase(commandConnection(settings), database => new Alarms(database).list(Number(days)))
  if (json === true) print(`${JSON.stringify(found)}\n`)
  else if (found.length === 0) print('There is no alarm.\n')
  else
    for (const { rule, subject, detail, since, until } of found) {
      const time = until === null ? `since ${formatMoment(since)}` : `${formatMoment(since)} to ${formatMoment(until)}`
      print(`${until === null ? 'ALARM' : 'over '}  ${rule}: ${printable(subject)}, ${printable(detail)}, ${time}\n`)
      if (until === null) print(`       to do: ${ruleNamed(rule).remedy}\n`)
    }
  return found.some(({ until }) => until === null) ? 1 : 0
}

/**
 * Reports one start and one end of each rule, marked as a test. Stores nothing and blocks nothing.
 */
async function testReporters(
  settings: Settings,
  { json }: TestOptions,
  print: (text: string) => void,
): Promise<number> {
  const reporters = reportersOf(settings)
  if (reporters.length === 0)
    throw new UsageFault('there is no way to report: set alerts.mail_to, alerts.webhook_file or alerts.program')
  const now = new Date(systemClock())
  const results: { rule: string; by: string; fault?: string }[] = []
  for (const { name: rule, ...texts } of ALARM_RULES.filter(({ name }) => !settings.alerts.off.includes(name)))
    for (const { name: by, send } of reporters)
      for (const state of ['start', 'end'] as const) {
        const until = state === 'end' ? now : null
        const { summary, remedy, severity } = texts
        const message = { rule, state, subject: 'test', detail: 'this is a test', since: now, until, host: hostname() }
        const fault = await send({ ...message, summary, remedy, severity }).then(() => undefined, messageOf)
        if (state === 'start' || fault !== undefined)
          results.push({ rule, by, ...(fault === undefined ? {} : { fault }) })
      }
  if (json === true) print(`${JSON.stringify(results)}\n`)
  else
    for (const { rule, by, fault } of results)
      print(`${rule} by ${by}: ${fault === undefined ? 'reported' : printable(fault)}\n`)
  return results.some(({ fault }) => fault !== undefined) ? 1 : 0
}

/** Time limit of one query, which reads an hour of the history. */
const STATEMENT_TIMEOUT_MS = 30_000

async function startAlerts(load: () => Settings): Promise<RunningDaemon> {
  const settings = load()
  const { every, user, off, close, close_for } = settings.alerts
  checkRuleNames(settings)
  const log = createLog('alerts', { level: settings.top.log_level })
  const reporters = reportersOf(settings)
  const connection = databaseConnection(settings, 'writer')
  const ids = isRoot() && user !== '' ? idsOf(user, 'alerts.user') : undefined
  if (ids !== undefined) dropPrivileges(ids, databaseGroups(settings))
  const database = openDatabase({
    ...connection,
    applicationName: 'auth-relay alerts',
    max: 2,
    statementTimeoutMs: STATEMENT_TIMEOUT_MS,
  })
  const devices = new DeviceAdmin(database)
  const watch = new AlertWatch({
    alarms: new Alarms(database),
    admin: createGrantAdmin(database, policyOf(settings)),
    loginsOf: async name => (await devices.list(name)).flatMap(({ logins }) => logins),
    reporters,
    limits: limitsOf(settings),
    off,
    close,
    closeFor: close_for,
    facts: () => factsOfHost(settings),
    host: hostname(),
    log,
    now: () => new Date(systemClock()),
  })
  void watch.look()
  const timer = setInterval(() => void watch.look(), every * 1000)
  return {
    ready: `every=${every}s reported_by=${reporters.map(({ name }) => name).join(',') || 'none'}`,
    reload: () => log.info('settings_reloaded', restartFields('alerts', settings, load())),
    stop: async () => {
      clearInterval(timer)
      await database.close()
    },
  }
}

const limitsOf = ({ alerts: limits }: Settings): AlarmLimits => ({
  loginAddresses: limits.login_addresses,
  addressLogins: limits.address_logins,
  deviceFactor: limits.device_factor,
  refusalFactor: limits.refusal_factor,
  silentDays: limits.silent_days,
  endDays: limits.end_days,
})

const DAY_MS = 86_400_000

/** The certificates that this host shows. */
async function factsOfHost(settings: Settings): Promise<readonly AlarmFact[]> {
  const shown = await shownCertificates(settings)
  const near = systemClock() + settings.alerts.end_days * DAY_MS
  return shown.flatMap(({ address, found }) => {
    const subject = `${hostname()} ${address}`
    if ('fault' in found) return [{ rule: 'certificate_end', subject, detail: found.fault }]
    if (found.until.getTime() > near) return []
    return [{ rule: 'certificate_end', subject, detail: `ends ${formatMoment(found.until)}` }]
  })
}
