/**
 * Settings as text: a settings file, the recipes of init, and single settings without their
 * secrets.
 */

import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { stringify } from 'smol-toml'
import { type Origin, SECTIONS, type ShownSetting } from '../../settings/settings.ts'

/** Values that differ from the defaults, by section and name, as they stand in a settings file. */
export type Overrides = Readonly<Record<string, Readonly<Record<string, unknown>>>>

export type SettingsTextOptions = {
  /** The JSON schema that the first line names for editors, by its path or address. */
  readonly schema?: string | undefined
  /** Comment lines at the top of the file, without `#`. */
  readonly head: readonly string[]
  /** Also write what each setting of the file means. */
  readonly withMeanings?: boolean
  /** Also write what every setting means, and those that keep their default, commented out. */
  readonly withDefaults: boolean
}

const WIDTH = 100

/**
 * A settings file made from the settings' own table. Lists of tables (`sslwrap.listener`) come last
 * in their section, as TOML demands.
 * @throws TypeError for an override that names no setting.
 */
export function formatSettings(
  overrides: Overrides,
  { schema, head, withMeanings = false, withDefaults }: SettingsTextOptions,
): string {
  const lines: string[] = [...(schema === undefined ? [] : [`#:schema ${schema}`]), ...head.map(comment)]
  const sections = Object.values(SECTIONS)
  for (const name of Object.keys(overrides)) {
    if (!sections.some(section => section.name === name)) throw new TypeError(`there is no section ${name}`)
  }
  for (const { name: section, doc, rows } of sections) {
    const values = overrides[section] ?? {}
    for (const name of Object.keys(values)) {
      if (!Object.hasOwn(rows, name)) throw new TypeError(`there is no setting ${section}.${name}`)
    }
    if (!withDefaults && Object.keys(values).length === 0) continue
    lines.push('')
    if (withDefaults && doc !== '') lines.push(comment(doc))
    if (section !== '') lines.push(`[${section}]`)
    const tables: string[] = []
    for (const [name, row] of Object.entries(rows)) {
      const isSet = Object.hasOwn(values, name)
      const value = isSet ? values[name] : row.default
      if (isListOfTables(value)) {
        if (withMeanings && !withDefaults) tables.push('', ...wrap(row.doc))
        tables.push(...value.flatMap(table => ['', `[[${section}.${name}]]`, stringify(table).trimEnd()]))
        continue
      }
      const assignment = stringify({ [name]: value }).trimEnd()
      if (withDefaults) lines.push('', ...wrap(row.doc))
      else if (withMeanings && isSet)
        lines.push(...(['', `[${section}]`].includes(lines.at(-1) ?? '') ? [] : ['']), ...wrap(row.doc))
      if (isSet) lines.push(assignment)
      else if (withDefaults) lines.push(...assignment.split('\n').map(line => `#${line}`))
    }
    lines.push(...tables)
  }
  return `${lines.join('\n').trimStart()}\n`
}

/**
 * The path of the settings' JSON schema, which is above the running program; undefined if the
 * installation has none.
 */
export function schemaFile(running = process.argv[1] ?? ''): string | undefined {
  const above = dirname(dirname(running))
  const found = [above, dirname(above)].map(directory => join(directory, SCHEMA)).find(path => existsSync(path))
  return found === undefined ? undefined : realpathSync(found)
}

const SCHEMA = 'deploy/auth-relay.schema.json'

const comment = (line: string): string => (line === '' ? '#' : `# ${line}`)

const isListOfTables = (value: unknown): value is readonly Record<string, unknown>[] =>
  Array.isArray(value) && value.length > 0 && value.every(item => typeof item === 'object' && item !== null)

/** Comment lines of at most WIDTH columns, wrapped at spaces. */
function wrap(text: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 3 > WIDTH) {
      lines.push(comment(line))
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, comment(line)]
}

/**
 * A recipe: the settings of a kind of site, with the comments for its file and the steps for the
 * administrator.
 */
export type Recipe = {
  readonly about: string
  readonly overrides: Overrides
  /** Comment lines at the top of the file. */
  readonly notes: readonly string[]
  /** Units of the package that the site needs. */
  readonly units: readonly string[]
  /** The remaining steps outside of auth-relay, with the section of docs/INSTALL.md. */
  readonly next: readonly string[]
}

const LOG_READER = {
  overrides: {
    popup: { listen: [] },
    authd: { syslog_listen: ['127.0.0.1:6514'], check_daemon_dovecot: true },
  },
  notes: [
    'The POP3 server stays, and authd reads its log. check_daemon_dovecot is for Dovecot. For another server write',
    'check_daemon_courier, check_daemon_cyrus or another name of: auth-relay settings authd',
  ],
  next: ['Let rsyslog send the mail log to authd: INSTALL, "Log reader", step 4.'],
} as const

/**
 * The gate for Postfix. `auth-relay explain` gets the counts of a device from the query service.
 */
const POSTFIX = {
  policy_listen: ['127.0.0.1:10040'],
  query_listen: ['unix:/run/auth-relay/gate/query.sock'],
}

/** The recipes of `auth-relay init --for`. */
export const RECIPES = {
  postfix: {
    about: 'Postfix, and a POP3 server whose log is read',
    overrides: { ...LOG_READER.overrides, wrap: POSTFIX },
    notes: LOG_READER.notes,
    units: ['authd', 'wrap'],
    next: [...LOG_READER.next, 'Let Postfix query the gate: INSTALL, "Postfix".'],
  },
  'postfix-popup': {
    about: 'Postfix without another POP3 server; popup and pop3d serve the mailboxes',
    overrides: { popup: { listen: ['*:110'], checker: 'passwd-file' }, wrap: POSTFIX },
    notes: [
      'sslwrap answers port 995 before popup. A device gets its login with: auth-relay device add … --password',
      'A user with mail gets a login with: auth-relay passwd LOGIN',
    ],
    units: ['authd', 'popup', 'sslwrap', 'wrap'],
    next: ['Let Postfix query the gate: INSTALL, "Postfix".'],
  },
  exim: {
    about: 'Exim, and a POP3 server whose log is read',
    overrides: { ...LOG_READER.overrides, wrap: { query_listen: ['127.0.0.1:10042'] } },
    notes: LOG_READER.notes,
    units: ['authd', 'wrap'],
    next: [...LOG_READER.next, 'Let Exim query the gate: INSTALL, "Exim".'],
  },
  qmail: {
    about: 'qmail-smtpd behind the gate; popup and pop3d serve the mailboxes',
    overrides: {
      popup: { listen: ['*:110'], checker: 'checkpassword', checkpassword: ['/bin/checkpassword'] },
      wrap: {
        listen: ['*:25'],
        smtpd: ['/var/qmail/bin/qmail-smtpd'],
        smtpd_user: 'qmaild',
        // recipeForHost omits it on a host without the file.
        rules: '/etc/tcp.smtp.cdb',
      },
    },
    notes: ['sslwrap answers port 995 before popup. The gate replaces tcpserver on port 25.'],
    units: ['authd', 'popup', 'sslwrap', 'wrap'],
    next: ['Let the gate start qmail-smtpd: INSTALL, "Whole stack with qmail", step 3.'],
  },
  logs: {
    about: 'a host that reads a log and has no gate: the mail server is on another host',
    overrides: LOG_READER.overrides,
    notes: LOG_READER.notes,
    units: ['authd'],
    next: LOG_READER.next,
  },
} as const satisfies Readonly<Record<string, Recipe>>

export type RecipeName = keyof typeof RECIPES

export const isRecipeName = (word: string): word is RecipeName => Object.hasOwn(RECIPES, word)

/**
 * The recipe of a site for this host. It omits `wrap.rules` if the file does not exist, because the
 * gate would close each connection with 421.
 */
export function recipeForHost(site: RecipeName, exists: (path: string) => boolean = existsSync): Recipe {
  const recipe: Recipe = RECIPES[site]
  const { rules, ...wrap } = recipe.overrides['wrap'] ?? {}
  if (typeof rules !== 'string' || exists(rules)) return recipe
  const note = `${rules} does not exist, so wrap.rules is not set. Set it when you have a cdb of tcprules.`
  return { ...recipe, overrides: { ...recipe.overrides, wrap }, notes: [...recipe.notes, note] }
}

const PASSWORDS: ReadonlySet<string> = new Set(['dbpass', 'wrap_dbpass', 'status_dbpass'])

/** True for the name of a setting whose value is a password. */
export const isPassword = (name: string): boolean => PASSWORDS.has(name)

/** The setting in a form that may be printed: without a password that is in the file. */
export const hideSecret = (setting: ShownSetting): ShownSetting =>
  isPassword(setting.name) && setting.written !== '' ? { ...setting, written: '[secret]' } : setting

/** Describes the origin of a setting's value. */
export function describeOrigin(origin: Origin): string {
  switch (origin.kind) {
    case 'default':
      return 'default'
    case 'file':
      return `line ${origin.line}`
    case 'environment':
      return `environment ${origin.variable}`
  }
}
