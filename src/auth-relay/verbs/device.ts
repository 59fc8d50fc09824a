/** The verb `device` with its actions, and the warnings about rules that nothing enforces. */
import { resolve } from 'node:path'
import { Command } from 'commander'
import { type Fault, formatFault, UsageFault } from '../../base/errors.ts'
import { type Device, DeviceAdmin } from '../../grants/devices/device-admin.ts'
import { formatHours } from '../../grants/devices/mail-rules.ts'
import { policyOf } from '../../grants/grant-policy.ts'
import { accountNamed } from '../../libc/accounts.ts'
import { loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { type RuleKind, rulesOfExim } from '../check/check-gate.ts'
import { type RuleOptions, readChanges, readLogin } from '../device-changes.ts'
import { readNetwork } from '../grant-target.ts'
import { DEVICE_ACCOUNT, makeMaildrop } from '../maildrop.ts'
import { PasswordFile, randomPassword } from '../secrets.ts'
import { commandConnection, operatorName, withDatabase } from '../site-database.ts'
import { partsInUse } from '../stack/plan.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/terminal.ts'
import type { Action, Surroundings, Verb } from '../verb.ts'
import { withActions, withConfigOption } from '../verb.ts'

/** `auth-relay device`: sets the mail that a login may send. */
export const device: Verb = (program, surroundings, choose) => {
  const choosing = (run: Run): void => choose({ kind: 'command', run })
  const verb = program
    .command('device')
    .description('set what a device may send: senders, networks, recipient domains, limits')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay device add copier-2 --login copier2@example.org --password \\
    --sender scan@example.org --from 192.0.2.0/24 --to example.org,partner.example \\
    --per-hour 60 --until 2027-12-31
  auth-relay device set --help

The gate uses a change with the next connection, and wrap.front with the next message.
Senders, domains and limits are enforced by wrap.front, by the policy service, and by the
query service if the query names sender, recipient and message; networks and the end also
by the socketmap service, the cdb and the SQL views; hours and places by all of them except
the cdb and the views.`,
    )
  const actionNamed = (name: string, about: string): Command =>
    withConfigOption(new Command(name)).description(about).option('--json', 'print JSON')
  const add = withRuleOptions(
    actionNamed('add', 'make a device')
      .argument(...NAME)
      .option(...LOGIN),
  )
    .addHelpText(
      'after',
      `\nExample:\n  auth-relay device add fax --login fax@example.org --per-hour 60\n${PASSWORD_HELP}`,
    )
    .action((name: string, _: object, command: Command) =>
      choosing(readAdd(readName('add', name), command.optsWithGlobals(), surroundings)),
    )
  const set = withRuleOptions(
    actionNamed('set', 'change the rules that the options name')
      .argument(...NAME)
      .option(...LOGIN),
  )
    .addHelpText(
      'after',
      `
Example:
  auth-relay device set copier-2 --to example.org --hours 07:00-19:00 --password

The command changes what its options name; an empty text ('') empties a list.
${PASSWORD_HELP}
${NO_DEVICE}`,
    )
    .action((name: string, _: object, command: Command) =>
      choosing(readSet(readName('set', name), command.optsWithGlobals(), surroundings)),
    )
  const show = actionNamed('show', 'print the rules of a device')
    .argument(...NAME)
    .addHelpText('after', `\n${NO_DEVICE}`)
    .action((name: string, _: object, command: Command) =>
      choosing(readShow(readName('show', name), command.optsWithGlobals(), surroundings)),
    )
  const list = actionNamed('list', 'print the rules of every device').action((_: object, command: Command) =>
    choosing(readList(command.optsWithGlobals(), surroundings)),
  )
  const remove = actionNamed('remove', 'remove a device; its logins have the default rules from then on')
    .argument(...NAME)
    .addHelpText('after', `\n${NO_DEVICE}`)
    .action((name: string, _: object, command: Command) =>
      choosing(readRemove(readName('remove', name), command.optsWithGlobals(), surroundings)),
    )
  const adopt = withRuleOptions(
    actionNamed('adopt', 'make a device of a login that has none').argument('<login>', 'POP3 login of the device'),
  )
    .addHelpText(
      'after',
      `
Example:
  auth-relay device adopt copier2@example.org --sender scan@example.org

The device has the networks from which the login came during the last ${ADOPT_DAYS} days. It is named
after the login. The options add to that.
${PASSWORD_HELP}
Exit status 1 if there was no such login.`,
    )
    .action((login: string, _: object, command: Command) =>
      choosing(readAdopt(login, command.optsWithGlobals(), surroundings)),
    )
  withActions(verb, [add, set, show, list, remove, adopt])
}

const NAME = ['<name>', 'name of the device'] as const
const LOGIN = ['--login <names>', 'POP3 logins of the device, separated by commas'] as const
const NO_DEVICE = 'Exit status 1 if there is no such device.'
const PASSWORD_HELP = `
The password of --password has 20 letters and digits, and the file has its hash. A login that
the file does not have is added; its maildrop is empty and belongs to the account
${DEVICE_ACCOUNT}. For a login with mail: auth-relay passwd LOGIN --uid 5000 --home /PATH`

/** Days of the history that `adopt` looks at. */
const ADOPT_DAYS = 30

/** The options of `add`, `set` and `adopt`. */
const withRuleOptions = (command: Command): Command =>
  command
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

type CommonOptions = { readonly config: string; readonly json?: true }
type Options = CommonOptions & RuleOptions & { readonly password?: true }

type Run = Extract<Action, { kind: 'command' }>['run']

function readName(action: string, name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name))
    throw new UsageFault(`device ${action} needs a name of letters, digits, dots, underscores and hyphens, at most 64`)
  return name
}

/** Returns a command that works with the devices of the settings. */
const withDevices =
  (
    { config }: CommonOptions,
    { environment }: Surroundings,
    work: (admin: DeviceAdmin, settings: Settings) => Promise<number>,
  ): Run =>
  () => {
    const { settings } = loadSettingsFile(resolve(config), environment)
    return withDatabase(commandConnection(settings), database => work(new DeviceAdmin(database), settings))
  }

const report = ({ json }: CommonOptions, { print }: Surroundings, value: object, text: string): void =>
  print(json === true ? `${JSON.stringify(value)}\n` : `${text}\n`)

function reportMissing(name: string, options: CommonOptions, surroundings: Surroundings): number {
  report(options, surroundings, { name, found: false }, `There is no device ${name}.`)
  return 1
}

const readList = (options: CommonOptions, surroundings: Surroundings): Run =>
  withDevices(options, surroundings, async admin => {
    const devices = await admin.list()
    const text = devices.length === 0 ? 'There is no device.' : devices.map(describe).join('\n')
    report(options, surroundings, devices, text)
    return 0
  })

const readShow = (name: string, options: CommonOptions, surroundings: Surroundings): Run =>
  withDevices(options, surroundings, async admin => {
    const [found] = await admin.list(name)
    if (found === undefined) return reportMissing(name, options, surroundings)
    report(options, surroundings, found, describe(found))
    return 0
  })

const readRemove = (name: string, options: CommonOptions, surroundings: Surroundings): Run =>
  withDevices(options, surroundings, async admin => {
    if (!(await admin.remove(name))) return reportMissing(name, options, surroundings)
    const text = `The device ${name} is removed. Its logins have the default rules from now on.`
    report(options, surroundings, { name, removed: true }, text)
    return 0
  })

function readAdd(name: string, options: Options, surroundings: Surroundings): Run {
  const changes = readChanges(options)
  if ((changes.logins ?? []).length === 0)
    throw new UsageFault('device add needs --login: the POP3 login with which the device opens the relay')
  return withDevices(options, surroundings, async (admin, settings) => {
    const base = { ...NOTHING, owner: operatorName(surroundings.environment) }
    return store({ ...base, ...changes, name }, true, admin, settings, options, surroundings)
  })
}

function readSet(name: string, options: Options, surroundings: Surroundings): Run {
  const changes = readChanges(options)
  return withDevices(options, surroundings, async (admin, settings) => {
    const [known] = await admin.list(name)
    if (known === undefined) return reportMissing(name, options, surroundings)
    return store({ ...known, ...changes, name }, false, admin, settings, options, surroundings)
  })
}

function readAdopt(name: string, options: Options, surroundings: Surroundings): Run {
  const login = readLogin(name)
  const changes = readChanges(options)
  return withDevices(options, surroundings, async (admin, settings) => {
    const seen = await admin.observe(login, ADOPT_DAYS)
    if (seen === undefined) {
      const text = `No login ${printable(login)} is known of the last ${ADOPT_DAYS} days.`
      report(options, surroundings, { login, found: false }, text)
      return 1
    }
    const adopted = {
      ...NOTHING,
      owner: operatorName(surroundings.environment),
      networks: seen.networks,
      name: nameFor(login),
      note: `adopted: ${seen.logins} logins`,
    }
    const stored = { ...adopted, ...changes, logins: [login] }
    return store(stored, true, admin, settings, options, surroundings)
  })
}

/** Stores a device, with --password also a new password of its login, and reports both. */
async function store(
  stored: Device,
  isNew: boolean,
  admin: DeviceAdmin,
  settings: Settings,
  options: Options,
  surroundings: Surroundings,
): Promise<number> {
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
  if (refusal !== undefined) return reportMissing(name, options, surroundings)
  const password = await change?.()
  const warnings = warningsAbout(stored, settings).map(formatFault)
  report(
    options,
    surroundings,
    { ...stored, ...(password === undefined ? {} : { password }), warnings },
    [
      describe(stored),
      ...(password === undefined ? [] : [`  password: ${password}`]),
      ...warnings.map(warning => `warning: ${warning}`),
    ].join('\n'),
  )
  return 0
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
      `${accounts.path} has no account ${login}: create it first, with its maildrop: auth-relay passwd ${login} --uid 5000 --home /var/vmail/${login}`,
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
      remedy: 'use wrap.front or the policy service instead',
    })
  if (stored.lineEndings === 'repair' && !(wrap.front && wrap.listen.length > 0))
    warnings.push({ fact: 'only wrap.front repairs line endings', remedy: 'set wrap.front' })
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
