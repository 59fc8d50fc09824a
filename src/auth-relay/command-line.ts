/** The verbs of auth-relay, and the message for a command line that cannot be parsed. */

import { Command, CommanderError } from 'commander'
import manifest from '../../package.json' with { type: 'json' }
import { UsageFault } from '../base/errors.ts'
import { nearest } from '../settings/settings.ts'
import { printable } from './text/terminal.ts'
import type { Action, Surroundings, Verb } from './verb.ts'
import { alerts } from './verbs/alerts.ts'
import { cert } from './verbs/cert.ts'
import { check } from './verbs/check.ts'
import { completion } from './verbs/completion.ts'
import { device } from './verbs/device.ts'
import { allow, disallow } from './verbs/grants/allow.ts'
import { block, revoke, unblock } from './verbs/grants/block.ts'
import { explain } from './verbs/grants/explain.ts'
import { report } from './verbs/grants/report.ts'
import { show } from './verbs/grants/show.ts'
import { watch } from './verbs/grants/watch.ts'
import { init } from './verbs/init.ts'
import { importGrants } from './verbs/logs/import.ts'
import { replay } from './verbs/logs/replay.ts'
import { testLine } from './verbs/logs/test-line.ts'
import { migrate } from './verbs/migrate.ts'
import { passwd } from './verbs/passwd.ts'
import { settings } from './verbs/settings.ts'
import { status } from './verbs/status.ts'
import { statusPage } from './verbs/status-page.ts'
import { up } from './verbs/up.ts'

/** `auth-relay version`: the same as `--version`. */
const version: Verb = (program, { print }, choose) => {
  program
    .command('version')
    .description('print the version')
    .action(() => {
      choose({
        kind: 'command',
        run: async () => {
          print(`auth-relay ${manifest.version}\n`)
          return 0
        },
      })
    })
}

const VERBS: readonly Verb[] = [
  up,
  init,
  settings,
  check,
  migrate,
  show,
  allow,
  disallow,
  block,
  unblock,
  revoke,
  explain,
  device,
  alerts,
  testLine,
  replay,
  importGrants,
  report,
  watch,
  status,
  statusPage,
  cert,
  passwd,
  completion,
  version,
]

const EXAMPLES = `
Examples:
  auth-relay up --demo                     try everything, in ./var, without touching the host
  auth-relay init && auth-relay check      write a settings file, then check it and the host
  auth-relay show                          who may relay now
  auth-relay explain 192.0.2.7             may this address relay, and why

Exit status: 0 done, 1 no, 100 wrong usage or settings, 111 temporary failure.
Manual: auth-relay(8), auth-relay.toml(5)`

/**
 * Parses the command line.
 * @throws UsageFault for an unknown word, with the most similar known one.
 */
export function readCommandLine(words: readonly string[], environment: Surroundings['environment']): Action {
  const surroundings: Surroundings = {
    environment,
    print: text => process.stdout.write(text),
    isTerminal: process.stdout.isTTY === true,
    // Text for a file or a pipe is not cut.
    columns: process.stdout.isTTY === true ? process.stdout.columns : Number.POSITIVE_INFINITY,
  }
  let action: Action | undefined
  const program = commandTree(surroundings, chosen => {
    action = chosen
  })
  try {
    program.parse([...words], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return done
    throw new UsageFault(describe(error, words, program), error)
  }
  if (action === undefined) throw new UsageFault('a verb is missing: auth-relay --help')
  return action
}

/** Every verb with its options, for the command line and for the manual. */
export function commandTree(surroundings: Surroundings, choose: (action: Action) => void): Command {
  const program = new Command('auth-relay')
    .description('POP before SMTP: an address may send mail for a limited time after a mailbox was opened from it.')
    .version(`auth-relay ${manifest.version}`, '-V, --version', 'print the version')
    .addHelpText('after', EXAMPLES)
    .helpCommand('help [verb]', 'explain a verb')
    .exitOverride()
    .configureOutput({ writeOut: surroundings.print, writeErr: () => {} })
  for (const verb of VERBS) verb(program, surroundings, choose)
  for (const command of program.commands) command.exitOverride().configureOutput({ writeErr: () => {} })
  return program
}

/** commander has printed the help. */
const done: Action = { kind: 'command', run: async () => 0 }

function describe(error: CommanderError, words: readonly string[], program: Command): string {
  const verbs = program.commands.map(command => command.name())
  const verb = program.commands.find(command => command.name() === words.find(word => verbs.includes(word)))
  const actions = (verb?.commands ?? []).map(command => command.name())
  // The verb has read its options, so the first word that it has left is the action.
  const [given] = verb?.args ?? []
  const path = [verb?.name(), actions.find(action => action === given)].filter(name => name !== undefined)
  const help = ['auth-relay', ...path, '--help'].join(' ')
  const [first, wanted] = words
  if (first === 'help' && wanted !== undefined && !verbs.includes(wanted)) return noSuchVerb(wanted, verbs)
  if (error.code === 'commander.help' || error.code === 'commander.helpDisplayed')
    return `${verb === undefined ? 'a verb' : `an action of ${verb.name()}`} is missing: ${help}`
  if (verb === undefined && error.code === 'commander.unknownCommand') {
    const word = words.find(candidate => !candidate.startsWith('-')) ?? ''
    return noSuchVerb(word, verbs)
  }
  if (actions.length > 0 && given !== undefined && !given.startsWith('-') && !actions.includes(given))
    return `${verb?.name()} has no action ${printable(given)}: write ${listed(actions)}${suggestion(given, actions)}: see ${help}`
  const message = error.message
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replace(/\s*\n\(Did you mean (.*)\?\)/, '; did you mean $1?')
  return `${message}: see ${help}`
}

const noSuchVerb = (word: string, verbs: readonly string[]): string =>
  `there is no verb ${printable(word)}${suggestion(word, verbs)}: see auth-relay --help`

function suggestion(word: string, names: readonly string[]): string {
  const near = nearest(word, names)
  return near === undefined ? '' : `; did you mean ${near}?`
}

/** `add, set or show`. */
const listed = (names: readonly string[]): string => `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`
