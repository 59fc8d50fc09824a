/** The verbs of auth-relay, and the message for a command line that cannot be parsed. */

import { Command, CommanderError } from 'commander'
import manifest from '../../package.json' with { type: 'json' }
import { nearest, UsageFault } from '../base/errors.ts'
import { aboutOption, refuseSecondConfig, unknownOption, wordsBefore } from '../process/command-line.ts'
import { printable } from './text/terminal.ts'
import type { Action, Surroundings, Verb } from './verb.ts'

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

/**
 * Loads a verb, in the order of the help. A command line loads its own verb alone, because some
 * verbs need the code of PostgreSQL, of the status page or of the embedded server.
 */
const VERBS: Readonly<Record<string, () => Promise<Verb>>> = {
  up: async () => (await import('./verbs/up.ts')).up,
  init: async () => (await import('./verbs/init.ts')).init,
  settings: async () => (await import('./verbs/settings.ts')).settings,
  check: async () => (await import('./verbs/check.ts')).check,
  migrate: async () => (await import('./verbs/migrate.ts')).migrate,
  show: async () => (await import('./verbs/grants/show.ts')).show,
  allow: async () => (await import('./verbs/grants/allow.ts')).allow,
  disallow: async () => (await import('./verbs/grants/allow.ts')).disallow,
  block: async () => (await import('./verbs/grants/block.ts')).block,
  unblock: async () => (await import('./verbs/grants/block.ts')).unblock,
  revoke: async () => (await import('./verbs/grants/block.ts')).revoke,
  explain: async () => (await import('./verbs/grants/explain.ts')).explain,
  device: async () => (await import('./verbs/device.ts')).device,
  alerts: async () => (await import('./verbs/alerts.ts')).alerts,
  'test-line': async () => (await import('./verbs/logs/test-line.ts')).testLine,
  replay: async () => (await import('./verbs/logs/replay.ts')).replay,
  import: async () => (await import('./verbs/logs/import.ts')).importGrants,
  report: async () => (await import('./verbs/grants/report.ts')).report,
  watch: async () => (await import('./verbs/grants/watch.ts')).watch,
  status: async () => (await import('./verbs/status.ts')).status,
  'status-page': async () => (await import('./verbs/status-page.ts')).statusPage,
  cert: async () => (await import('./verbs/cert.ts')).cert,
  passwd: async () => (await import('./verbs/passwd.ts')).passwd,
  completion: async () => (await import('./verbs/completion.ts')).completion,
  version: async () => version,
}

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
export async function readCommandLine(
  words: readonly string[],
  environment: Surroundings['environment'],
): Promise<Action> {
  const surroundings: Surroundings = {
    environment,
    print: text => process.stdout.write(text),
    isTerminal: process.stdout.isTTY === true,
    // Text for a file or a pipe is not cut.
    columns: process.stdout.isTTY === true ? process.stdout.columns : Number.POSITIVE_INFINITY,
  }
  let action: Action | undefined
  const program = await commandTree(
    surroundings,
    chosen => {
      action = chosen
    },
    verbsFor(words),
  )
  const own = wordsBefore('--', words)
  const about = aboutOption(own)
  if (about === undefined) refuseSecondConfig(own)
  try {
    program.parse(about === undefined ? [...words] : wordsAbout(about, own, program), { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return done
    throw new UsageFault(describe(error, words, program), error)
  }
  if (action === undefined) throw new UsageFault('a verb is missing: auth-relay --help')
  return action
}

/**
 * The words that print the help or the version: without the other options, because an option may
 * lack its value or be unknown.
 */
function wordsAbout(about: 'help' | 'version', words: readonly string[], program: Command): readonly string[] {
  if (about === 'version') return ['--version']
  const verb = verbOf(words, program)
  const action = verb?.commands.find(command => words.includes(command.name()))
  return [verb, action].flatMap(command => command?.name() ?? []).concat('--help')
}

/** The first word that is a verb. */
function verbOf(words: readonly string[], { commands }: Command): Command | undefined {
  const name = words.find(word => commands.some(command => command.name() === word))
  return commands.find(command => command.name() === name)
}

/** Names of the verbs that a command line needs. */
function verbsFor([first = '']: readonly string[]): readonly string[] {
  if (first === '--version' || first === '-V') return []
  // The help and the completion list every verb.
  return Object.hasOwn(VERBS, first) && first !== 'completion' ? [first] : Object.keys(VERBS)
}

/** The verbs of these names with their options, for the command line and for the manual. */
export async function commandTree(
  surroundings: Surroundings,
  choose: (action: Action) => void,
  names: readonly string[] = Object.keys(VERBS),
): Promise<Command> {
  const program = new Command('auth-relay')
    .description('POP before SMTP: an address may send mail for a limited time after a mailbox was opened from it.')
    .version(`auth-relay ${manifest.version}`, '-V, --version', 'print the version')
    .addHelpText('after', EXAMPLES)
    .helpCommand('help [verb]', 'explain a verb')
    .exitOverride()
    .configureOutput({ writeOut: surroundings.print, writeErr: () => {} })
  for (const verb of await Promise.all(names.map(name => VERBS[name]?.()))) verb?.(program, surroundings, choose)
  for (const command of program.commands) command.exitOverride().configureOutput({ writeErr: () => {} })
  return program
}

/** commander has printed the help. */
const done: Action = { kind: 'command', run: async () => 0 }

function describe(error: CommanderError, words: readonly string[], program: Command): string {
  const verbs = program.commands.map(each => each.name())
  const verb = verbOf(words, program)
  const actions = (verb?.commands ?? []).map(each => each.name())
  // The verb has read its options, so the first word that it has left is the action.
  const [given] = verb?.args ?? []
  const path = [verb?.name(), actions.find(action => action === given)].filter(name => name !== undefined)
  const command = ['auth-relay', ...path].join(' ')
  const help = `${command} --help`
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
  if (error.code === 'commander.unknownOption') {
    const [, option = '', similar] = /unknown option '(.*?)'(?:\n\(Did you mean (.*)\?\))?$/s.exec(error.message) ?? []
    return unknownOption(command, printable(option), similar)
  }
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
