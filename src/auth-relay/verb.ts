/** The form of a verb: it adds its words to the command line and chooses an action. */
import { type Command, Option } from 'commander'
import type { RunningDaemon } from '../process/lifecycle.ts'
import { SETTINGS_FILE } from '../settings/settings.ts'

/** The action of a verb: a command with an end and an exit status, or a daemon. */
export type Action =
  | { readonly kind: 'command'; run(): Promise<number> }
  /** `name` stands in its log lines and in its ready line. */
  | { readonly kind: 'daemon'; readonly name: string; start(): Promise<RunningDaemon> }

/** The surroundings of a verb: its output and its environment. */
export type Surroundings = {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Writes to standard output. */
  readonly print: (text: string) => void
  /** Standard output is a terminal: colour and the terminal's width apply. */
  readonly isTerminal: boolean
  readonly columns: number
}

/** Adds a verb to the command line; calls `choose` with the action when the verb was given. */
export type Verb = (program: Command, surroundings: Surroundings, choose: (action: Action) => void) => void

/** `--config FILE`, the same for every verb that reads the settings. */
export const withConfigOption = (command: Command): Command =>
  command.option('--config <file>', 'settings file', SETTINGS_FILE)

/**
 * Adds several actions to a verb, such as `device add` and `device list`. Each action has its own
 * options and help. The action `defaultName` runs if the command line names none; without it the
 * command line must name an action. Options may also stand before the action, so the verb knows
 * those of all its actions; the values of an action are in `optsWithGlobals()`.
 */
export function withActions(verb: Command, actions: readonly Command[], defaultName?: string): void {
  verb.helpCommand(false)
  for (const action of actions) {
    const isDefault = action.name() === defaultName
    verb.addCommand(action.copyInheritedSettings(verb), { isDefault })
    for (const { flags, description, long } of action.options)
      if (!verb.options.some(known => known.long === long))
        verb.addOption(new Option(flags, description).hideHelp(!isDefault))
  }
  verb.hook('preSubcommand', (_, action) => {
    const known = new Set(action.options.map(({ long }) => long))
    const isGiven = (option: Option): boolean => verb.getOptionValueSource(option.attributeName()) === 'cli'
    const foreign = verb.options.find(option => isGiven(option) && !known.has(option.long))
    if (foreign !== undefined)
      action.error(`error: unknown option '${foreign.long}'`, { code: 'commander.unknownOption' })
  })
}
