import type { Command } from 'commander'
import { DIALECTS } from '../../syslog/dialects.ts'
import { FORMATS } from '../foreign-grants.ts'
import type { Verb } from '../verb.ts'

/** `auth-relay completion`: what the shell needs to complete verbs and options. */
export const completion: Verb = (program, { print }, choose) => {
  program
    .command('completion')
    .description('print the completion of verbs and options for bash and zsh')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay completion > /etc/bash_completion.d/auth-relay
  autoload bashcompinit && bashcompinit && source <(auth-relay completion)      zsh`,
    )
    .action(() => {
      choose({
        type: 'command',
        run: async () => {
          print(bashCompletion(program))
          return 0
        },
      })
    })
}

/** Words that verbs take besides files and names. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  import: Object.keys(FORMATS),
  'test-line': ['all', ...DIALECTS.map(({ name }) => name)],
  replay: ['all', ...DIALECTS.map(({ name }) => name)],
}

/** A bash function that offers the verbs, then the options of the verb and the words that it takes; files where one may be wanted. */
export function bashCompletion(program: Command): string {
  const verbs = program.commands.map(command => command.name())
  const cases = program.commands.map(command => {
    const options = [...command.options.map(({ long }) => long ?? ''), '--help'].filter(option => option !== '')
    const values = VALUES[command.name()] ?? []
    return `    ${command.name()}) options="${options.join(' ')}" values="${values.join(' ')}" ;;`
  })
  return `_auth_relay() {
  local word=\${COMP_WORDS[COMP_CWORD]} verb=\${COMP_WORDS[1]} options= values=
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "${verbs.join(' ')} help --help --version" -- "$word"))
    return
  fi
  case $verb in
${cases.join('\n')}
    help) values="${verbs.join(' ')}" ;;
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$values" -- "$word") $(compgen -f -- "$word")) ;;
  esac
}
complete -o filenames -F _auth_relay auth-relay
`
}
