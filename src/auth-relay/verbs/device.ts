import { resolve } from 'node:path'
import { domainToASCII, domainToUnicode } from 'node:url'
import { UsageFault } from '../../base/errors.ts'
import { type Device, DeviceAdmin } from '../../grants/device-admin.ts'
import { loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { formatTarget, readNetwork } from '../grant-target.ts'
import { commandConnection, operatorName, withDatabase } from '../site-database.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/terminal.ts'
import type { Action, Surroundings, Verb } from '../verb.ts'
import { withConfigOption } from '../verb.ts'

type Options = {
  readonly config: string
  readonly login?: string
  readonly sender?: string
  readonly from?: string
  readonly to?: string
  readonly perHour?: string
  readonly perDay?: string
  readonly recipientsPerHour?: string
  readonly recipientsPerDay?: string
  readonly lineEndings?: string
  readonly until?: string
  readonly owner?: string
  readonly note?: string
  readonly json?: true
}

/** `auth-relay device`: sets the mail that a login may send. */
export const device: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('device'))
    .description('say what a device may send: senders, networks, recipient domains, limits')
    .argument('<action>', 'add, set, show, list or remove')
    .argument('[name]', 'name of the device')
    .option('--login <names>', 'POP3 logins of the device, separated by commas')
    .option('--sender <addresses>', 'envelope senders that it may use')
    .option('--from <networks>', 'networks from which its logins open the relay')
    .option('--to <domains>', 'domains to which it may send')
    .option('--per-hour <count>', 'messages an hour; 0: no limit')
    .option('--per-day <count>', 'messages a day')
    .option('--recipients-per-hour <count>', 'recipients an hour')
    .option('--recipients-per-day <count>', 'recipients a day')
    .option('--line-endings <way>', 'strict, or repair for a device that sends bare LF or CR (wrap.front)')
    .option('--until <date>', 'last day, 2027-12-31 (UTC), or never')
    .option('--owner <name>', 'person who is responsible for the device; by default the operator')
    .option('--note <text>', 'text that show prints')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay device add copier-2 --login copier2@example.org --sender scan@example.org \\
    --from 192.0.2.0/24 --to example.org,partner.example --per-hour 60 --until 2027-12-31
  auth-relay device set copier-2 --to example.org
  auth-relay device list

set changes what its options name; an empty text ('') empties a list. The gate uses a change
with the next connection. Senders, domains and limits are enforced by wrap.front and by the
policy service; networks and the end also by the socketmap and query services, the cdb and
the SQL views.
Exit status 1 if there is no such device.`,
    )
    .action((action: string, name: string | undefined, options: Options) =>
      choose({ type: 'command', run: readAction(action, name, options, surroundings) }),
    )
}

type Run = Extract<Action, { type: 'command' }>['run']

function readAction(action: string, name: string | undefined, options: Options, surroundings: Surroundings): Run {
  const { print, environment } = surroundings
  const withDevices = <T>(work: (admin: DeviceAdmin, settings: Settings) => Promise<T>): Promise<T> => {
    const { settings } = loadSettingsFile(resolve(options.config), environment)
    return withDatabase(commandConnection(settings), database => work(new DeviceAdmin(database), settings))
  }
  const say = (json: object, text: string): void =>
    print(options.json === true ? `${JSON.stringify(json)}\n` : `${text}\n`)
  if (action === 'list') {
    if (name !== undefined) throw new UsageFault(`device list takes no name: write device show ${name}`)
    return () =>
      withDevices(async admin => {
        const devices = await admin.list()
        say(devices, devices.length === 0 ? 'There is no device.' : devices.map(describe).join('\n'))
        return 0
      })
  }
  if (name === undefined || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name))
    throw new UsageFault(`device ${action} needs a name of letters, digits, dots, underscores and hyphens, at most 64`)
  const missing = (): number => {
    say({ name, found: false }, `There is no device ${name}.`)
    return 1
  }
  switch (action) {
    case 'show':
      return () =>
        withDevices(async admin => {
          const [found] = await admin.list(name)
          if (found === undefined) return missing()
          say(found, describe(found))
          return 0
        })
    case 'remove':
      return () =>
        withDevices(async admin => {
          if (!(await admin.remove(name))) return missing()
          say({ name, removed: true }, `The device ${name} is removed. Its logins have the default rules from now on.`)
          return 0
        })
    case 'add':
    case 'set': {
      const changes = readChanges(options)
      if (action === 'add' && (changes.logins ?? []).length === 0)
        throw new UsageFault('device add needs --login: the POP3 login with which the device opens the relay')
      return () =>
        withDevices(async (admin, settings) => {
          const [known] = await admin.list(name)
          if (action === 'set' && known === undefined) return missing()
          const base = known ?? { ...NOTHING, owner: operatorName(environment) }
          const stored: Device = { ...base, ...changes, name }
          if (stored.logins.length === 0)
            throw new UsageFault(`device ${name} would have no login: name one with --login, or remove the device`)
          const refusal = await admin.store(stored, action === 'add')
          if (refusal?.refused === 'login')
            throw new UsageFault(`the login ${refusal.login} belongs to another device: auth-relay device list`)
          if (refusal?.refused === 'exists')
            throw new UsageFault(`the device ${name} exists: change it with device set ${name}`)
          if (refusal !== undefined) return missing()
          const warnings = warningsAbout(stored, settings)
          say({ ...stored, warnings }, [describe(stored), ...warnings.map(warning => `warning: ${warning}`)].join('\n'))
          return 0
        })
    }
    default:
      throw new UsageFault(`device ${action}: write add, set, show, list or remove`)
  }
}

const NOTHING: Omit<Device, 'name' | 'owner'> = {
  logins: [],
  senders: [],
  networks: [],
  recipientDomains: [],
  messagesPerHour: 0,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  until: null,
  note: '',
}

function readChanges(options: Options): Partial<Omit<Device, 'name'>> {
  const { login, sender, from, to, perHour, perDay, recipientsPerHour, recipientsPerDay, until, owner, note } = options
  return {
    ...(login === undefined ? {} : { logins: words(login, '--login').map(readLogin) }),
    ...(sender === undefined ? {} : { senders: words(sender, '--sender').map(readSender) }),
    ...(from === undefined ? {} : { networks: words(from, '--from').map(each => formatTarget(readNetwork(each))) }),
    ...(to === undefined ? {} : { recipientDomains: [...new Set(words(to, '--to').flatMap(readDomain))] }),
    ...(perHour === undefined ? {} : { messagesPerHour: readLimit(perHour, '--per-hour') }),
    ...(perDay === undefined ? {} : { messagesPerDay: readLimit(perDay, '--per-day') }),
    ...(recipientsPerHour === undefined
      ? {}
      : { recipientsPerHour: readLimit(recipientsPerHour, '--recipients-per-hour') }),
    ...(recipientsPerDay === undefined
      ? {}
      : { recipientsPerDay: readLimit(recipientsPerDay, '--recipients-per-day') }),
    ...(options.lineEndings === undefined ? {} : { lineEndings: readLineEndings(options.lineEndings) }),
    ...(until === undefined ? {} : { until: readEnd(until) }),
    ...(owner === undefined ? {} : { owner: readText(owner, '--owner', 255) }),
    ...(note === undefined ? {} : { note: readText(note, '--note', 500) }),
  }
}

function words(text: string, option: string): readonly string[] {
  const found = text.split(/[\s,]+/).filter(word => word !== '')
  if (found.length > 100) throw new UsageFault(`${option} names more than 100: make another device`)
  return found
}

function readLogin(text: string): string {
  return readText(text, '--login', 255)
}

function readSender(text: string): string {
  if (!/^[^@\s<>]+@[^@\s<>]+$/.test(text) || text.length > 254)
    throw new UsageFault(`--sender ${text} is no address: write scan@example.org`)
  return text
}

/** In both forms, because a client may write either. */
function readDomain(text: string): readonly string[] {
  const ascii = domainToASCII(text.replace(/\.$/, ''))
  if (ascii === '' || !/^[a-z0-9._-]+$/.test(ascii))
    throw new UsageFault(`--to ${text} is no domain: write example.org, without @`)
  return [ascii, domainToUnicode(ascii)]
}

function readLimit(text: string, option: string): number {
  if (!/^\d{1,7}$/.test(text)) throw new UsageFault(`${option} ${text} is no limit: write a whole number, 0 for none`)
  return Number(text)
}

function readLineEndings(text: string): Device['lineEndings'] {
  if (text === 'strict' || text === 'repair') return text
  throw new UsageFault(`--line-endings ${text}: write strict or repair`)
}

/** The moment behind the last day; null for never. */
function readEnd(text: string): Date | null {
  if (text === 'never') return null
  const day = /^\d{4}-\d{2}-\d{2}$/.test(text) ? new Date(`${text}T00:00:00Z`) : undefined
  if (day === undefined || Number.isNaN(day.getTime()) || !day.toISOString().startsWith(text))
    throw new UsageFault(`--until ${text} is no day: write 2027-12-31, or never`)
  return new Date(day.getTime() + 86_400_000)
}

function readText(text: string, option: string, most: number): string {
  if (text.length > most || /[\0-\x1f\x7f]/.test(text))
    throw new UsageFault(`${option} is longer than ${most} characters, or not one line of text`)
  return text
}

/** Rules that nothing enforces here. */
export function warningsAbout(stored: Device, { wrap, grants }: Settings): readonly string[] {
  const warnings: string[] = []
  const hasMailRules =
    stored.senders.length > 0 ||
    stored.recipientDomains.length > 0 ||
    [stored.messagesPerHour, stored.messagesPerDay, stored.recipientsPerHour, stored.recipientsPerDay].some(
      each => each > 0,
    )
  const hasFront = wrap.front && wrap.listen.length > 0
  if (hasMailRules && !hasFront && wrap.policy_listen.length === 0)
    warnings.push(
      'nothing on this host enforces senders, domains and limits: set wrap.front (qmail-smtpd) or wrap.policy_listen (Postfix)',
    )
  if (stored.lineEndings === 'repair' && !hasFront)
    warnings.push('line endings are repaired by wrap.front alone: set it')
  if (!grants.store_user)
    warnings.push('grants.store_user is false, so that no grant names its login: no device has an effect')
  const never = stored.networks.filter(text => {
    const { base } = readNetwork(text)
    return grants.never_grant.has(base)
  })
  if (never.length > 0) warnings.push(`${never.join(', ')}: begins with an address that grants.never_grant excludes`)
  return warnings
}

function describe({ name, until, ...rest }: Device): string {
  const limits = [
    [rest.messagesPerHour, 'messages an hour'],
    [rest.messagesPerDay, 'messages a day'],
    [rest.recipientsPerHour, 'recipients an hour'],
    [rest.recipientsPerDay, 'recipients a day'],
  ] as const
  const given = limits.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`)
  const lines = [
    ['logins', rest.logins.join(', ')],
    ['senders', rest.senders.join(', ')],
    ['from', rest.networks.join(', ')],
    ['to', rest.recipientDomains.join(', ')],
    ['limits', given.join(', ')],
    ['line endings', rest.lineEndings === 'repair' ? 'repaired' : ''],
    ['until', until === null ? '' : formatMoment(until)],
    ['owner', rest.owner],
    ['note', rest.note],
  ].filter(([, value]) => value !== '')
  return [name, ...lines.map(([label, value]) => `  ${label}: ${printable(value ?? '')}`)].join('\n')
}
