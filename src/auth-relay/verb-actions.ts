/** Verbs with several actions, such as `device add` and `device list`. */
import { type Command, Option } from 'commander'

/**
 * Adds the actions to a verb. Each action has its own options and help. The action `defaultName`
 * runs if the command line names none; without it the command line must name an action. Options may
 * also stand before the action, so the verb knows those of all its actions; the values of an action
 * are in `optsWithGlobals()`.
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
