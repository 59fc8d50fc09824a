/** `auth-relay init`: the settings of the new file, and the parts of an older file that stay. */

import { chmodSync, copyFileSync, existsSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { errorCodeOf, messageOf, nearest, UsageFault } from '../../base/errors.ts'
import { distributionServer } from '../../database/server-program.ts'
import { PACKAGED_SETUP } from '../../settings/database-remedy.ts'
import { loadSettingsFile, SETTINGS_FILE } from '../../settings/settings.ts'
import { ensureSecretFile, randomSecret, writePrivateFile } from '../secrets.ts'
import {
  formatSettings,
  isRecipeName,
  type Overrides,
  RECIPES,
  type Recipe,
  type RecipeName,
  recipeForHost,
  schemaFile,
} from '../text/settings-text.ts'
import type { Verb } from '../verb.ts'

type Options = { config: string; for?: string; dbhost?: string; embedded?: true; json?: true }

/** `auth-relay init`: writes a commented settings file with random secrets. */
export const init: Verb = (program, { print }, choose) => {
  program
    .command('init')
    .description('write a commented settings file with random secrets; nothing starts until you have read it')
    .option('--config <file>', 'settings file to write', SETTINGS_FILE)
    .option('--for <site>', `only the settings that matter for ${Object.keys(RECIPES).join(', ')}`)
    .option('--dbhost <hosts>', 'hosts of PostgreSQL; without it PostgreSQL of this host, if it is installed')
    .option('--embedded', 'use the embedded PostgreSQL, for a trial')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Sites:
${Object.entries(RECIPES)
  .map(([name, { about }]) => `  ${name.padEnd(13)} ${about}`)
  .join('\n')}

Examples:
  auth-relay init
  auth-relay init --for postfix
  auth-relay init --dbhost db1.example.org,db2.example.org

A file in which configured is false, such as that of the Debian package, is replaced.
Its settings stay, and the former text is kept beside it with the ending .old. A file in
which configured is true is kept as it is.

A PostgreSQL of the distribution is preferred to the embedded one, because the
distribution updates it. Every other setting: auth-relay settings.`,
    )
    .action((options: Options) => {
      if (options.dbhost !== undefined && options.embedded === true) {
        throw new UsageFault('--dbhost and --embedded exclude each other: choose one')
      }
      const site = options.for === undefined ? undefined : siteNamed(options.for)
      choose({ kind: 'command', run: async () => write(resolve(options.config), site, options, print) })
    })
}

function siteNamed(word: string): RecipeName {
  if (isRecipeName(word)) return word
  const near = nearest(word, Object.keys(RECIPES))
  throw new UsageFault(
    `there is no site ${word}${near === undefined ? '' : `; did you mean ${near}?`}: known are ${Object.keys(RECIPES).join(', ')}`,
  )
}

function write(
  config: string,
  site: RecipeName | undefined,
  { embedded, json, ...options }: Options,
  print: (text: string) => void,
): number {
  const former = existsSync(config) ? unreadSettings(config) : undefined
  const choosesDatabase = options.dbhost !== undefined || embedded === true
  const distribution = choosesDatabase || former !== undefined ? undefined : distributionServer()
  const dbhost = options.dbhost ?? (distribution === undefined ? undefined : 'localhost')
  const recipe = site === undefined ? undefined : recipeForHost(site)
  const secret = join(dirname(config), 'sslhack.pass')
  const database: DatabaseChoice =
    dbhost !== undefined ? { dbhost } : former !== undefined && embedded !== true ? 'as before' : 'embedded'
  const overrides = settingsFor({ secret, database, ...(recipe && { recipe }), ...(former && { former }) })
  const text = settingsTemplate(config, overrides, recipe)
  const madeSecret = overrides['popup']?.['ssl_hack_pass'] === secret
  try {
    if (former === undefined) writePrivateFile(config, text)
    else replaceFile(config, text, holdsPassword(overrides))
    if (madeSecret) ensureSecretFile(secret)
  } catch (error) {
    const code = errorCodeOf(error)
    const why = messageOf(error)
    throw new UsageFault(
      code === 'ENOENT'
        ? `the directory ${dirname(config)} does not exist: create it, or choose another place with --config`
        : `cannot write ${config}: ${why}: start as root, or choose another place with --config`,
      error,
    )
  }
  if (json === true) {
    const host =
      overrides['database']?.['embedded'] === true ? null : (overrides['database']?.['dbhost'] ?? 'localhost')
    print(`${JSON.stringify({ config, for: site ?? null, ssl_hack_pass: madeSecret ? secret : null, dbhost: host })}\n`)
    return 0
  }
  const mode = (statSync(config).mode & 0o777).toString(8).padStart(4, '0')
  const files = madeSecret ? ` and the password of the SSL command, ${secret}` : ''
  const kept = former === undefined ? '' : `The former text is in ${config}.old; its settings stay.\n`
  const why =
    distribution === undefined
      ? ''
      : `The settings name PostgreSQL ${distribution} of this host, because the distribution updates it. The embedded one: auth-relay init --embedded.\n`
  const steps = nextSteps(config, overrides, recipe)
  print(`Wrote ${config} (mode ${mode})${files}.
${kept}${why}Next:
${steps.map((step, index) => `  ${index + 1}. ${step}\n`).join('')}`)
  return 0
}

/**
 * The settings of a file in which `configured` is still false. @throws UsageFault if the
 * administrator has confirmed the file.
 */
function unreadSettings(config: string): Overrides {
  const { settings, shown } = loadSettingsFile(config, {})
  if (settings.top.configured) {
    throw new UsageFault(
      `${config} exists and is kept: check it with auth-relay check, see its settings with auth-relay settings, or rename it first`,
    )
  }
  const found: Record<string, Record<string, unknown>> = {}
  for (const { section, name, written, origin } of shown) {
    if (origin.kind === 'file') found[section] = { ...found[section], [name]: written }
  }
  return found
}

/**
 * Replaces the text of a settings file: same owner, and the same mode unless the text contains a
 * password. The former text is kept beside the file.
 */
function replaceFile(config: string, text: string, isSecret: boolean): void {
  const { uid, gid, mode } = statSync(config)
  copyFileSync(config, `${config}.old`)
  chmodSync(`${config}.old`, mode & 0o777)
  writePrivateFile(config, text, { uid, gid })
  if (!isSecret) chmodSync(config, mode & 0o777)
}

const holdsPassword = ({ database }: Overrides): boolean => PASSWORDS.some(name => (database?.[name] ?? '') !== '')

function nextSteps(config: string, { database }: Overrides, recipe: Recipe | undefined): readonly string[] {
  const option = config === SETTINGS_FILE ? '' : ` --config ${config}`
  const isPackaged = config === SETTINGS_FILE && existsSync(PACKAGED_SETUP)
  const isEmbedded = database?.['embedded'] === true
  const host = database?.['dbhost'] ?? 'localhost'
  const makeDatabase = isEmbedded
    ? []
    : isPackaged && host === 'localhost'
      ? [basename(PACKAGED_SETUP)]
      : [
          `auth-relay migrate${option} --user postgres     tables and roles, in a database made with: createdb pop3authd`,
        ]
  const parts = (recipe?.units ?? ['authd', 'popup', 'sslwrap', 'wrap']).map(part => `auth-relay-${part}`)
  return [
    `Read ${config}; set configured = true.`,
    ...makeDatabase,
    `auth-relay check${option}`,
    isPackaged && !isEmbedded
      ? `systemctl enable --now auth-relay.target ${parts.join(' ')}`
      : `auth-relay up${option}`,
    ...(recipe?.next ?? []),
  ]
}

type DatabaseChoice = { readonly dbhost: string } | 'embedded' | 'as before'

const PASSWORDS = ['dbpass', 'wrap_dbpass', 'status_dbpass'] as const

/** The values of the new file: the settings of an older file, the database and the recipe. */
export function settingsFor({
  secret,
  database,
  recipe,
  former = {},
}: {
  readonly secret: string
  readonly database: DatabaseChoice
  readonly recipe?: Recipe
  readonly former?: Overrides
}): Overrides {
  const { popup = {}, authd = {}, ...others } = former
  const usesPopup = recipe === undefined || recipe.units.includes('popup')
  const base: Overrides = {
    ...others,
    '': { ...former[''], configured: false },
    database: databaseFor(database, former['database'] ?? {}),
    popup: { ...(usesPopup ? { ssl_hack_pass: secret } : {}), ...popup },
    authd: { user: 'auth-relay', ...authd },
  }
  const sections = new Set([...Object.keys(base), ...Object.keys(recipe?.overrides ?? {})])
  return Object.fromEntries([...sections].map(name => [name, { ...base[name], ...recipe?.overrides[name] }]))
}

/** A role with its password in a file keeps that file. */
function databaseFor(choice: DatabaseChoice, former: Overrides[string]): Overrides[string] {
  if (choice === 'as before') return former
  const { embedded, ...rest } = former
  if (choice === 'embedded') return { ...rest, embedded: true }
  const missing = PASSWORDS.filter(name => (rest[name] ?? '') === '' && (rest[`${name}_file`] ?? '') === '')
  return { ...rest, ...choice, ...Object.fromEntries(missing.map(name => [name, randomSecret()])) }
}

/** The text of the file. `configured` is false until the administrator has confirmed the file. */
export function settingsTemplate(config: string, overrides: Overrides, recipe?: Recipe): string {
  const option = config === SETTINGS_FILE ? '' : ` --config ${config}`
  const schema = schemaFile()
  const check = `Check the file and the host with: auth-relay check${option}`
  if (recipe === undefined) {
    return formatSettings(overrides, {
      schema,
      head: [
        'Settings of auth-relay: POP before SMTP. auth-relay.toml(5) explains every one.',
        'A line that begins with # followed by a name shows a default; remove the # to change it.',
        'An environment variable of the same name in upper case (EXP_TIME, POPUP_LISTEN) overrides a line.',
        check,
      ],
      withDefaults: true,
    })
  }
  return formatSettings(overrides, {
    schema,
    head: [
      `Settings of auth-relay: ${recipe.about}.`,
      'Every setting that is not here has its default. All settings with their meaning: auth-relay settings',
      check,
      ...recipe.notes,
    ],
    withMeanings: true,
    withDefaults: false,
  })
}
