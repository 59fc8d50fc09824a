import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { UsageFault } from '../../base/exit-status.ts'
import { distributionServer } from '../../database/server-program.ts'
import { SETTINGS_FILE } from '../../settings/settings.ts'
import { ensureSecretFile, randomSecret, writePrivateFile } from '../secret-file.ts'
import { formatSettings, type Overrides } from '../text/settings-text.ts'
import type { Verb } from '../verb.ts'

type Options = { config: string; dbhost?: string; embedded?: true; json?: true }

/** `auth-relay init`: a settings file to read, with secrets that nobody chose. */
export const init: Verb = (program, { print }, choose) => {
  program
    .command('init')
    .description('write a commented settings file with random secrets; nothing starts until you have read it')
    .option('--config <file>', 'where to write it', SETTINGS_FILE)
    .option(
      '--dbhost <hosts>',
      'use the PostgreSQL at these hosts; without it the one of this host, if it is installed',
    )
    .option('--embedded', 'use the embedded PostgreSQL, for a trial')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay init
  auth-relay init --dbhost db1.example.org,db2.example.org

A PostgreSQL of the distribution is preferred to the embedded one, because the
distribution updates it.`,
    )
    .action((options: Options) => {
      if (options.dbhost !== undefined && options.embedded === true) {
        throw new UsageFault('--dbhost and --embedded exclude each other: choose one')
      }
      choose({ type: 'command', run: async () => write(resolve(options.config), options, print) })
    })
}

function write(config: string, { embedded, json, ...options }: Options, print: (text: string) => void): number {
  const distribution = options.dbhost === undefined && embedded !== true ? distributionServer() : undefined
  const dbhost = options.dbhost ?? (distribution === undefined ? undefined : 'localhost')
  if (existsSync(config)) {
    throw new UsageFault(`${config} exists and is kept: judge it with auth-relay check, or move it away first`)
  }
  const secret = join(dirname(config), 'sslhack.pass')
  const text = settingsTemplate(config, secret, dbhost)
  try {
    writePrivateFile(config, text)
    ensureSecretFile(secret)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    const why = error instanceof Error ? error.message : String(error)
    throw new UsageFault(
      code === 'ENOENT'
        ? `there is no directory ${dirname(config)}: make it, or choose another place with --config`
        : `cannot write ${config}: ${why}: start as root, or choose another place with --config`,
      error,
    )
  }
  if (json === true) {
    print(`${JSON.stringify({ config, ssl_hack_pass: secret, dbhost: dbhost ?? null })}\n`)
    return 0
  }
  const option = config === SETTINGS_FILE ? '' : ` --config ${config}`
  const why =
    distribution === undefined
      ? ''
      : `The settings name PostgreSQL ${distribution} of this host, because the distribution updates it. The embedded one: auth-relay init --embedded.\n`
  print(`Wrote ${config} (mode 0600) and the password of the SSL command, ${secret}.
${why}Next:
  1. Read ${config}; set configured = true.
${dbhost === undefined ? '' : `  2. auth-relay migrate${option} --user postgres     tables and roles, in a database made with: createdb pop3authd\n`}  ${dbhost === undefined ? 2 : 3}. auth-relay check${option}
  ${dbhost === undefined ? 3 : 4}. auth-relay up${option}
`)
  return 0
}

/** The text of the file. `configured` is false: the administrator says when he has read it. */
export function settingsTemplate(config: string, secret: string, dbhost: string | undefined): string {
  const overrides: Overrides = {
    '': { configured: false },
    database:
      dbhost === undefined
        ? { embedded: true }
        : { dbhost, dbpass: randomSecret(), wrap_dbpass: randomSecret(), status_dbpass: randomSecret() },
    popup: { ssl_hack_pass: secret },
    authd: { user: 'auth-relay' },
  }
  const option = config === SETTINGS_FILE ? '' : ` --config ${config}`
  return formatSettings(overrides, {
    head: [
      'Settings of auth-relay: POP before SMTP. auth-relay.toml(5) explains every one.',
      'A line that begins with # followed by a name shows a default; remove the # to change it.',
      'An environment variable of the same name in upper case (EXP_TIME, POPUP_LISTEN) overrides a line.',
      `Authenticator the file and the host with: auth-relay check${option}`,
    ],
    withDefaults: true,
  })
}
