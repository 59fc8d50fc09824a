/** The form of a verb: it adds its words to the command line and chooses an action. */

import type { Command } from 'commander'
import type { RunningDaemon } from '../process/lifecycle.ts'
import { SETTINGS_FILE } from '../settings/settings.ts'

/** The action of a verb: a command with an end and an exit status, or a daemon. */
export type Action =
  | { readonly type: 'command'; run(): Promise<number> }
  /** `name` stands in its log lines and in its ready line. */
  | { readonly type: 'daemon'; readonly name: string; start(): Promise<RunningDaemon> }

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
