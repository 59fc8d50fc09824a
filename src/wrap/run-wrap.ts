/** The program `wrap` apart from exec mode: its command line, its settings, its start. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { EXIT, messageOf, UsageFault } from '../base/errors.ts'
import { printToStandardError } from '../base/log.ts'
import {
  aboutOption,
  missingSettingsFile,
  parseDaemonWords,
  refuseSecondConfig,
  unknownOption,
  wordsBefore,
} from '../process/command-line.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'
import { parseSocketAddress, type SocketAddress } from '../process/socket-address.ts'
import { loadDaemonSettings, parseSettings, SETTINGS_FILE, type Settings } from '../settings/settings.ts'
import { startGate } from './gate/gate-daemon.ts'

const USAGE = `Usage: wrap SMTPD [ARGUMENT...]           in front of an smtpd, under tcpserver or inetd
       wrap [--config FILE]                  the gate and its services, by the settings
       wrap --listen ADDRESS [options] -- SMTPD [ARGUMENT...]
                                             the gate without a section in the settings file
       wrap --help | --version

  --listen ADDRESS  192.0.2.1:25, [2001:db8::1]:25, *:25; may be repeated
  --smtpd-user ACCOUNT  account of the smtpd (wrap.smtpd_user); older name: --user
  --gate-user ACCOUNT   account of the gate itself (wrap.user); default auth-relay-gate
  -x, --rules CDB   rules made by tcprules
  -c, --connections N   most smtpds at once
  --per-address N   most smtpds for one address

Called qmail-smtpd or auth-wrap, it runs QMAILDIR/bin/QMAIL_SMTPD_NOAUTH. Every setting may be overridden by its
environment variable (DBHOST, EXP_TIME, WRAP_TIMEOUT, RELAYCLIENT_VALUE, ...). See wrap(8).
`

/** The meaning of a command line. `config` is an absolute path. */
type Invocation =
  /** Help or version, for standard output. */
  | { readonly kind: 'about'; readonly text: string }
  | {
      readonly kind: 'daemon'
      readonly config: string | undefined
      readonly overrides: Overrides
      readonly warnings: readonly string[]
    }

const OPTIONS = {
  config: { type: 'string' },
  listen: { type: 'string', multiple: true },
  'smtpd-user': { type: 'string' },
  user: { type: 'string' },
  'gate-user': { type: 'string' },
  rules: { type: 'string', short: 'x' },
  connections: { type: 'string', short: 'c' },
  'per-address': { type: 'string' },
} as const

/** Settings of the command line, which override the settings file. */
type Overrides = {
  readonly listen?: readonly SocketAddress[]
  readonly smtpd?: readonly string[]
  readonly smtpd_user?: string
  readonly user?: string
  readonly rules?: string
  readonly max_connections?: number
  readonly max_per_address?: number
}

/** Parses all command lines except those of exec mode. Throws UsageFault. */
export function parseCommandLine(args: readonly string[]): Invocation {
  const own = wordsBefore('--', args)
  if (aboutOption(own) !== undefined) {
    const words = parseDaemonWords('wrap', USAGE, SETTINGS_FILE, own)
    if (words.kind === 'about') return words
  }
  refuseSecondConfig(own)
  const { values, positionals } = readOptions(args)
  const { config, listen, user, rules, connections } = values
  const { 'per-address': perAddress, 'gate-user': gateUser, 'smtpd-user': smtpdUser = user } = values
  if (user !== undefined && values['smtpd-user'] !== undefined)
    throw new UsageFault('--user is the older name of --smtpd-user: give --smtpd-user alone')
  if (config === '') throw new UsageFault(missingSettingsFile('wrap'))
  if (positionals.length > 0 && listen === undefined)
    throw new UsageFault('an smtpd after options needs --listen ADDRESS: see wrap --help')
  return {
    kind: 'daemon',
    config: config === undefined ? undefined : resolve(config),
    overrides: {
      ...(listen === undefined ? {} : { listen: listen.map(addressOf) }),
      ...(positionals.length === 0 ? {} : { smtpd: positionals }),
      ...(smtpdUser === undefined ? {} : { smtpd_user: smtpdUser }),
      ...(gateUser === undefined ? {} : { user: gateUser }),
      ...(rules === undefined ? {} : { rules }),
      ...(connections === undefined ? {} : { max_connections: countOf(connections, '--connections') }),
      ...(perAddress === undefined ? {} : { max_per_address: countOf(perAddress, '--per-address') }),
    },
    warnings: user === undefined ? [] : ['--user is the older name: write --smtpd-user'],
  }
}

function readOptions(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS })
  } catch (error) {
    throw new UsageFault(faultOfOptions(args) ?? `${messageOf(error)}: see wrap --help`, error)
  }
}

/** The first fault of the options, in one line. The message of the runtime may have three lines. */
function faultOfOptions(args: readonly string[]): string | undefined {
  const { tokens } = parseArgs({ args: [...args], strict: false, tokens: true, options: OPTIONS })
  for (const token of tokens) {
    if (token.kind !== 'option') continue
    const { name, rawName, value, inlineValue } = token
    if (!Object.hasOwn(OPTIONS, name)) return unknownOption('wrap', rawName)
    // Without strict parsing, the value of an option that lacks one is the next option.
    if (value === undefined || (!inlineValue && /^-./.test(value)))
      return name === 'config' ? missingSettingsFile('wrap') : `${rawName}: its value is missing: see wrap --help`
  }
  return undefined
}

function addressOf(text: string): SocketAddress {
  const address = parseSocketAddress(text)
  if (address === undefined) throw new UsageFault(`--listen ${text}: write ADDRESS:PORT, [IPV6]:PORT or *:PORT`)
  return address
}

function countOf(text: string, option: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new UsageFault(`${option} ${text}: write a whole number`)
  return Number(text)
}

/**
 * Loads the settings of the gate. A command line with --listen needs no file. The command line
 * overrides file and environment. Throws UsageFault.
 */
function loadSettings(
  { config, overrides }: { readonly config: string | undefined; readonly overrides: Overrides },
  environment: Readonly<Record<string, string | undefined>>,
): Settings {
  const file = config ?? SETTINGS_FILE
  const needsFile = config !== undefined || overrides.listen === undefined || existsSync(file)
  const settings = needsFile
    ? loadDaemonSettings('wrap', file, environment)
    : parseSettings('', '(no settings file)', environment).settings
  return { ...settings, wrap: { ...settings.wrap, ...overrides } }
}

/** Runs the program `wrap` apart from exec mode. */
export const runWrap = (
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Promise<void> =>
  runCommand('wrap', async () => {
    const invocation = parseCommandLine(args)
    switch (invocation.kind) {
      case 'about':
        process.stdout.write(invocation.text)
        return EXIT.done
      case 'daemon':
        for (const warning of invocation.warnings) printToStandardError(`wrap: ${warning}\n`)
        await runDaemon('wrap', () => startGate(() => loadSettings(invocation, environment)))
        return EXIT.done
    }
  })
