import { resolve } from 'node:path'
import { domainToASCII, domainToUnicode } from 'node:url'
import { type Fault, formatFault, UsageFault } from '../../base/errors.ts'
import { type Device, DeviceAdmin } from '../../grants/devices/device-admin.ts'
import { formatHours } from '../../grants/devices/mail-rules.ts'
import { isPlace } from '../../grants/devices/network-facts.ts'
import { policyOf } from '../../grants/grant-policy.ts'
import { accountNamed } from '../../libc/accounts.ts'
import { loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { type RuleKind, rulesOfExim } from '../check/check-gate.ts'
import { formatTarget, readNetwork } from '../grant-target.ts'
import { DEVICE_ACCOUNT, makeMaildrop } from '../maildrop.ts'
import { PasswordFile, randomPassword } from '../secrets.ts'
import { commandConnection, operatorName, withDatabase } from '../site-database.ts'
import { partsInUse } from '../stack/plan.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/terminal.ts'
import type { Action, Surroundings, Verb } from '../verb.ts'
import { withConfigOption } from '../verb.ts'

/** `auth-relay device`: sets the mail that a login may send. */
export const device: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('device'))
    .description('set what a device may send: senders, networks, recipient domains, limits')
    .argument('<action>', 'add, set, show, list, remove or adopt')
    .argument('[name]', 'name of the device; for adopt the login')
    .option('--login <names>', 'POP3 logins of the device, separated by commas')
    .option('--sender <addresses>', 'envelope senders that it may use')
    .option('--from <networks>', 'networks, countries (DE) and AS numbers (AS64500) from which it opens the relay')
    .option('--to <domains>', 'domains to which it may send')
    .option('--per-hour <count>', 'messages an hour; 0: no limit')
    .option('--per-day <count>', 'messages a day')
    .option('--recipients-per-hour <count>', 'recipients an hour')
    .option('--recipients-per-day <count>', 'recipients a day')
    .option('--line-endings <way>', 'strict, or repair for a device that sends bare LF or CR (wrap.front)')
    .option('--hours <hours>', 'hours of the day, 07:00-19:00 in local time, or always')
    .option('--password', 'give its login a new password in popup.passwd_file, and print it')
    .option('--until <date>', 'last day, 2027-12-31 (UTC), or never')
    .option('--owner <name>', 'person who is responsible for the device; by default the operator')
    .option('--note <text>', 'text that show prints')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay device add copier-2 --login copier2@example.org --password \\
    --sender scan@example.org --from 192.0.2.0/24 --to example.org,partner.example \\
    --per-hour 60 --until 2027-12-31
  auth-relay device set copier-2 --to example.org --hours 07:00-19:00 --password
  auth-relay device adopt copier2@example.org
  auth-relay device list

set changes what its options name; an empty text ('') empties a list. The gate uses a change
with the next connection, and wrap.front with the next message. Senders, domains and limits
are enforced by wrap.front, by the policy service, and by the query service if the query
names sender, recipient and message; networks and the end also by the socketmap service, the
cdb and the SQL views; hours and places by all of them except the cdb and the views.
adopt makes a device of a login that has none, with the networks from which it logged in
during the last 30 days; the device is named after the login. --sender and all other options
add to that. The password of --password has 20 letters and digits, and the file has its hash.
A login that the file does not have is added; its maildrop is empty and belongs to the
account ${DEVICE_ACCOUNT}. For a login with mail:
auth-relay passwd LOGIN --uid 5000 --home /PATH
Exit status 1 if there is no such device, or if adopt finds no login.`,
    )
    .action((action: string, name: string | undefined, options: Options) =>
      choose({ type: 'command', run: readAction(action, name, options, surroundings) }),
    )
}

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
  readonly hours?: string
  readonly password?: true
  readonly until?: string
  readonly owner?: string
  readonly note?: string
  readonly json?: true
}

type Run = Extract<Action, { type: 'command' }>['run']

function readAction(action: string, name: string | undefined, options: Options, surroundings: Surroundings): Run {
  const { print, environment } = surroundings
  const withDevices = <T>(work: (admin: DeviceAdmin, settings: Settings) => Promise<T>): Promise<T> => {
    const { settings } = loadSettingsFile(resolve(options.config), environment)
    return withDatabase(commandConnection(settings), database => work(new DeviceAdmin(database), settings))
  }
  /** Changes the stored device and, with --password, the password of its login. */
  const store = async (admin: DeviceAdmin, settings: Settings, stored: Device, isNew: boolean): Promise<number> => {
    const { name } = stored
    if (stored.logins.length === 0)
      throw new UsageFault(`device ${name} would have no login: name one with --login, or remove the device`)
    refuseWithoutEffect(stored, settings)
    const change = options.password === true ? passwordChange(stored, settings) : undefined
    const refusal = await admin.store(stored, isNew)
    if (refusal?.refused === 'login')
      throw new UsageFault(`the login ${refusal.login} belongs to another device: auth-relay device list`)
    if (refusal?.refused === 'exists')
      throw new UsageFault(`the device ${name} exists: change it with device set ${name}`)
    if (refusal !== undefined) return missing(name)
    const password = await change?.()
    const warnings = warningsAbout(stored, settings).map(formatFault)
    report(
      { ...stored, ...(password === undefined ? {} : { password }), warnings },
      [
        describe(stored),
        ...(password === undefined ? [] : [`  password: ${password}`]),
        ...warnings.map(warning => `warning: ${warning}`),
      ].join('\n'),
    )
    return 0
  }
  const missing = (name: string): number => {
    report({ name, found: false }, `There is no device ${name}.`)
    return 1
  }
  const report = (json: object, text: string): void =>
    print(options.json === true ? `${JSON.stringify(json)}\n` : `${text}\n`)
  if (action === 'list') {
    if (name !== undefined) throw new UsageFault(`device list takes no name: write device show ${name}`)
    return () =>
      withDevices(async admin => {
        const devices = await admin.list()
        report(devices, devices.length === 0 ? 'There is no device.' : devices.map(describe).join('\n'))
        return 0
      })
  }
  if (action === 'adopt') {
    if (name === undefined)
      throw new UsageFault('device adopt needs the login: auth-relay device adopt copier2@example.org')
    const login = readLogin(name)
    const changes = readChanges(options)
    return () =>
      withDevices(async (admin, settings) => {
        const seen = await admin.observe(login, ADOPT_DAYS)
        if (seen === undefined) {
          report({ login, found: false }, `No login ${printable(login)} is known of the last ${ADOPT_DAYS} days.`)
          return 1
        }
        const owner = operatorName(environment)
        const adopted = {
          ...NOTHING,
          owner,
          networks: seen.networks,
          name: nameFor(login),
          note: `adopted: ${seen.logins} logins`,
        }
        return store(admin, settings, { ...adopted, ...changes, logins: [login] }, true)
      })
  }
  if (name === undefined || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name))
    throw new UsageFault(`device ${action} needs a name of letters, digits, dots, underscores and hyphens, at most 64`)
  switch (action) {
    case 'show':
      return () =>
        withDevices(async admin => {
          const [found] = await admin.list(name)
          if (found === undefined) return missing(name)
          report(found, describe(found))
          return 0
        })
    case 'remove':
      return () =>
        withDevices(async admin => {
          if (!(await admin.remove(name))) return missing(name)
          report(
            { name, removed: true },
            `The device ${name} is removed. Its logins have the default rules from now on.`,
          )
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
          if (action === 'set' && known === undefined) return missing(name)
          const base = known ?? { ...NOTHING, owner: operatorName(environment) }
          const stored: Device = { ...base, ...changes, name }
          return store(admin, settings, stored, action === 'add')
        })
    }
    default:
      throw new UsageFault(`device ${action}: write add, set, show, list, remove or adopt`)
  }
}

const NOTHING: Omit<Device, 'name' | 'owner'> = {
  logins: [],
  senders: [],
  networks: [],
  places: [],
  recipientDomains: [],
  messagesPerHour: 0,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  until: null,
  note: '',
}

function readChanges(options: Options): Partial<Omit<Device, 'name'>> {
  const { login, sender, from, to, perHour, perDay, recipientsPerHour, recipientsPerDay, until, owner, note } = options
  return {
    ...(login === undefined ? {} : { logins: words(login, '--login').map(readLogin) }),
    ...(sender === undefined ? {} : { senders: words(sender, '--sender').map(readSender) }),
    ...(from === undefined ? {} : readFrom(words(from, '--from'))),
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
    ...(options.hours === undefined ? {} : { hours: readHours(options.hours) }),
    ...(until === undefined ? {} : { until: readEnd(until) }),
    ...(owner === undefined ? {} : { owner: readText(owner, '--owner', 255) }),
    ...(note === undefined ? {} : { note: readText(note, '--note', 500) }),
  }
}

function words(text: string, option: string): readonly string[] {
  const found = text.split(/[\s,]+/).filter(word => word !== '')
  if (found.length > 100) throw new UsageFault(`${option} names more than 100 values: make another device for the rest`)
  return found
}

/** Networks, and places: `DE`, `AS64500`. */
const readFrom = (from: readonly string[]): Pick<Device, 'networks' | 'places'> => ({
  networks: from.filter(each => !isPlace(each)).map(each => formatTarget(readNetwork(each))),
  places: from.filter(isPlace),
})

function readLogin(text: string): string {
  return readText(text, '--login', 255)
}

function readSender(text: string): string {
  if (!/^[^@\s<>]+@[^@\s<>]+$/.test(text) || text.length > 254)
    throw new UsageFault(`--sender ${text} is not an address: write scan@example.org`)
  return text
}

/** In both forms, because a client may write either. */
function readDomain(text: string): readonly string[] {
  const ascii = domainToASCII(text.replace(/\.$/, ''))
  if (ascii === '' || !/^[a-z0-9._-]+$/.test(ascii))
    throw new UsageFault(`--to ${text} is not a domain: write example.org, without @`)
  return [ascii, domainToUnicode(ascii)]
}

function readLimit(text: string, option: string): number {
  if (!/^\d{1,7}$/.test(text))
    throw new UsageFault(`${option} ${text} is not a limit: write a whole number, 0 for none`)
  return Number(text)
}

function readLineEndings(text: string): Device['lineEndings'] {
  if (text === 'strict' || text === 'repair') return text
  throw new UsageFault(`--line-endings ${text}: write strict or repair`)
}

/** Null for always. */
function readHours(text: string): Device['hours'] {
  if (text === 'always') return null
  const [, fromHour = '', fromMinute = '', toHour = '', toMinute = ''] =
    /^(\d\d):(\d\d)-(\d\d):(\d\d)$/.exec(text) ?? []
  const from = Number(fromHour) * 60 + Number(fromMinute)
  const to = Number(toHour) * 60 + Number(toMinute)
  const isTime = fromHour !== '' && Number(fromMinute) < 60 && Number(toMinute) < 60 && from < 1440 && to <= 1440
  if (!isTime || from === to)
    throw new UsageFault(`--hours ${text} is not a part of the day: write 07:00-19:00, 22:00-06:00 or always`)
  return { from, to }
}

/** The time at the end of the last day; null: never. */
function readEnd(text: string): Date | null {
  if (text === 'never') return null
  const day = /^\d{4}-\d{2}-\d{2}$/.test(text) ? new Date(`${text}T00:00:00Z`) : undefined
  if (day === undefined || Number.isNaN(day.getTime()) || !day.toISOString().startsWith(text))
    throw new UsageFault(`--until ${text} is not a day: write 2027-12-31, or never`)
  return new Date(day.getTime() + DAY_MS)
}

function readText(text: string, option: string, most: number): string {
  if (text.length > most || /[\0-\x1f\x7f]/.test(text))
    throw new UsageFault(`${option} must be one line of at most ${most} characters: shorten it`)
  return text
}

/** Days of the history that `adopt` looks at. */
const ADOPT_DAYS = 30

/** `copier2@example.org` becomes `copier2-example.org`. */
function nameFor(login: string): string {
  const name = login
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 64)
  return name === '' ? 'device' : name
}

/**
 * Writes a new password for the only login of a device. A login without an account gets one with an
 * empty maildrop.
 * @throws UsageFault before anything is stored if the password would have no effect.
 */
function passwordChange({ name, logins }: Device, settings: Settings): () => Promise<string> {
  const [login = '', ...others] = logins
  const { checker, passwd_file } = settings.popup
  if (!partsInUse(settings).popup || checker !== 'passwd-file')
    throw new UsageFault(
      `--password writes popup.passwd_file, which popup does not read here (${checker === 'passwd-file' ? 'popup.listen is empty' : `popup.checker is "${checker}"`}): give ${login} its password at the server that checks it`,
    )
  if (others.length > 0)
    throw new UsageFault(
      `device ${name} has ${logins.length} logins: auth-relay passwd LOGIN gives one of them a password`,
    )
  const accounts = new PasswordFile(resolve(passwd_file))
  const owner = accounts.has(login) ? undefined : accountNamed(DEVICE_ACCOUNT)
  if (owner === undefined && !accounts.has(login))
    throw new UsageFault(
      `${accounts.path} has no account ${login}: make it first, with its maildrop: auth-relay passwd ${login} --uid 5000 --home /var/vmail/${login}`,
    )
  if (owner !== undefined) makeMaildrop(owner)
  return async () => {
    const password = randomPassword()
    const tail = owner === undefined ? undefined : `${owner.uid}:${owner.gid}:${owner.home}:Maildir`
    await accounts.setPassword(login, password, tail)
    return password
  }
}

/** Refuses a device that no grant can reach. */
function refuseWithoutEffect({ name, networks, places }: Device, settings: Settings): void {
  if (places.length > 0 && settings.grants.mmdb_files.length === 0)
    throw new UsageFault(
      `device ${name}: this host has no list of the addresses of ${places.join(', ')}: set grants.mmdb_files, or name networks with --from`,
    )
  if (places.length > 0) return
  const { neverList } = policyOf(settings)
  if (networks.length === 0 || networks.some(text => neverList.networkRefusal(readNetwork(text)) === undefined)) return
  throw new UsageFault(
    `device ${name}: no login from ${networks.join(', ')} is ever granted: name other networks with --from, or take these out of grants.never_grant`,
  )
}

/**
 * Names the rules that no program of this host enforces, and senders that other servers will
 * refuse. `exim`: the rules that Exim enforces by the query service.
 */
export function warningsAbout(
  stored: Device,
  { wrap, grants }: Settings,
  exim: ReadonlySet<RuleKind> = rulesOfExim(wrap),
): readonly Fault[] {
  const warnings: Fault[] = []
  const rules = unenforcedRules(stored, wrap, exim)
  if (rules.length > 0)
    warnings.push({
      fact: `nothing on this host enforces ${rules.join(', ')}`,
      remedy:
        'set wrap.front (qmail-smtpd), wrap.policy_listen (Postfix), or the query of Exim (INSTALL, section Exim)',
    })
  const blind = [
    ...(wrap.listen.length > 0 && !wrap.front ? ['wrap.listen without wrap.front'] : []),
    ...(wrap.tcprules_cdb === '' ? [] : ['wrap.tcprules_cdb']),
    ...(wrap.socketmap_listen.length === 0 ? [] : ['wrap.socketmap_listen']),
  ]
  if (rules.length === 0 && hasMailRules(stored) && blind.length > 0)
    warnings.push({
      fact: `a server that uses ${blind.join(' or ')} checks neither senders nor recipient domains nor limits`,
      remedy: 'put wrap.front or the policy service in its place',
    })
  if (stored.lineEndings === 'repair' && !(wrap.front && wrap.listen.length > 0))
    warnings.push({ fact: 'line endings are repaired by wrap.front alone', remedy: 'set it' })
  if (stored.hours !== null && wrap.tcprules_cdb !== '')
    warnings.push({
      fact: 'wrap.tcprules_cdb cannot express the hours of the day',
      remedy: 'let the gate accept connections (wrap.listen)',
    })
  if (stored.places.length > 0 && wrap.tcprules_cdb !== '')
    warnings.push({ fact: 'wrap.tcprules_cdb cannot express places', remedy: 'name networks besides with --from' })
  if (!grants.store_user)
    warnings.push({ fact: 'grants.store_user is false, so that no grant names its login: no device has an effect' })
  const never = stored.networks.filter(text => grants.never_grant.has(readNetwork(text).base))
  if (never.length > 0)
    warnings.push({ fact: `${never.join(', ')}: begins with an address that grants.never_grant excludes` })
  const own = wrap.sender_domains.map(domain => domain.toLowerCase())
  const foreign = stored.senders.filter(
    sender => !own.includes(sender.slice(sender.lastIndexOf('@') + 1).toLowerCase()),
  )
  if (own.length > 0 && foreign.length > 0)
    warnings.push({
      fact: `${foreign.join(', ')}: the domain is none of wrap.sender_domains, so that receivers may refuse such mail`,
      remedy: 'change --sender, or add the domain',
    })
  return warnings
}

const limitsOf = (stored: Device): readonly number[] => [
  stored.messagesPerHour,
  stored.messagesPerDay,
  stored.recipientsPerHour,
  stored.recipientsPerDay,
]

const hasMailRules = (stored: Device): boolean =>
  stored.senders.length > 0 || stored.recipientDomains.length > 0 || limitsOf(stored).some(limit => limit > 0)

/** The rules about mail that need a service with access to envelopes. */
function unenforcedRules(stored: Device, wrap: Settings['wrap'], exim: ReadonlySet<RuleKind>): readonly string[] {
  if ((wrap.front && wrap.listen.length > 0) || wrap.policy_listen.length > 0) return []
  const rules: readonly RuleKind[] = [
    ...(stored.senders.length > 0 ? (['senders'] as const) : []),
    ...(stored.recipientDomains.length > 0 ? (['recipient domains'] as const) : []),
    ...(limitsOf(stored).some(limit => limit > 0) ? (['limits'] as const) : []),
  ]
  return rules.filter(rule => !exim.has(rule))
}

const DAY_MS = 86_400_000

/** The day that --until takes. An end within a day has its time. */
const lastDay = (until: Date): string =>
  until.getTime() % DAY_MS === 0
    ? `${new Date(until.getTime() - DAY_MS).toISOString().slice(0, 10)} (UTC)`
    : formatMoment(until)

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
    ['from', [...rest.networks, ...rest.places].join(', ')],
    ['to', rest.recipientDomains.join(', ')],
    ['limits', given.join(', ')],
    ['hours', rest.hours === null ? '' : `${formatHours(rest.hours)}, local time`],
    ['line endings', rest.lineEndings === 'repair' ? 'repaired' : ''],
    ['until', until === null ? '' : lastDay(until)],
    ['owner', rest.owner],
    ['note', rest.note],
  ].filter(([, value]) => value !== '')
  return [name, ...lines.map(([label, value]) => `  ${label}: ${printable(value ?? '')}`)].join('\n')
}
