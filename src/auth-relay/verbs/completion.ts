import { Argument, type Command } from 'commander'
import { DIALECTS } from '../../syslog/dialects.ts'
import type { Verb } from '../verb.ts'
import { FORMATS } from './logs/foreign-grants.ts'

/** `auth-relay completion`: prints the shell script that completes verbs and options. */
export const completion: Verb = (program, { print }, choose) => {
  program
    .command('completion')
    .description('print the completion of verbs and options for bash, zsh or fish')
    .addArgument(new Argument('[shell]', 'the shell').choices(SHELLS).default('bash'))
    .addHelpText(
      'after',
      `
Examples:
  auth-relay completion bash > /etc/bash_completion.d/auth-relay
  auth-relay completion zsh > /usr/local/share/zsh/site-functions/_auth-relay
  auth-relay completion fish > /etc/fish/completions/auth-relay.fish`,
    )
    .action((shell: Shell) => {
      choose({
        type: 'command',
        run: async () => {
          print(shellCompletion(shell, program))
          return 0
        },
      })
    })
}

export const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** Arguments of verbs other than files and names. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  completion: SHELLS,
  import: Object.keys(FORMATS),
  'test-line': ['all', ...DIALECTS.map(({ name }) => name)],
  replay: ['all', ...DIALECTS.map(({ name }) => name)],
}

type VerbWords = {
  readonly name: string
  readonly about: string
  readonly options: readonly { readonly name: string; readonly about: string; readonly takesValue: boolean }[]
  readonly values: readonly string[]
}

const verbsOf = (program: Command): readonly VerbWords[] =>
  program.commands.map(command => ({
    name: command.name(),
    about: command.description(),
    options: [
      ...command.options.flatMap(({ long, description, required }) =>
        long ? [{ name: long, about: description, takesValue: required }] : [],
      ),
      { name: '--help', about: 'print the usage of the command', takesValue: false },
    ],
    values: VALUES[command.name()] ?? [],
  }))

/**
 * A script for the shell. It offers the verbs, then the options and arguments of the verb, or files
 * if the verb takes a file.
 */
export function shellCompletion(shell: Shell, program: Command): string {
  const verbs = verbsOf(program)
  switch (shell) {
    case 'bash':
      return bash(verbs)
    case 'zsh':
      return zsh(verbs)
    case 'fish':
      return fish(verbs)
  }
}

function bash(verbs: readonly VerbWords[]): string {
  const names = verbs.map(({ name }) => name).join(' ')
  const cases = verbs.map(
    ({ name, options, values }) =>
      `    ${name}) options="${options.map(option => option.name).join(' ')}" values="${values.join(' ')}" ;;`,
  )
  return `_auth_relay() {
  local word=\${COMP_WORDS[COMP_CWORD]} verb=\${COMP_WORDS[1]} options= values=
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "${names} help --help --version" -- "$word"))
    return
  fi
  case $verb in
${cases.join('\n')}
    help) values="${names}" ;;
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$values" -- "$word") $(compgen -f -- "$word")) ;;
  esac
}
complete -o filenames -F _auth_relay auth-relay
`
}

/** For a word list of zsh's _describe: NAME:DESCRIPTION, in single quotes. */
const described = (name: string, about: string): string => shellQuoted(`${name}:${about.replaceAll(':', '\\:')}`)

function zsh(verbs: readonly VerbWords[]): string {
  const cases = verbs.map(
    ({ name, options, values }) => `    ${name})
      options=(${options.map(option => described(option.name, option.about)).join(' ')})
      values=(${values.join(' ')}) ;;`,
  )
  return `#compdef auth-relay
_auth_relay() {
  local -a verbs options values
  verbs=(${verbs.map(({ name, about }) => described(name, about)).join(' ')} 'help:explain a command')
  if (( CURRENT == 2 )); then
    options=('--help:describe the commands' '--version:print the version')
    if [[ $PREFIX == -* ]]; then _describe -t options option options; else _describe -t commands command verbs; fi
    return
  fi
  case $words[2] in
${cases.join('\n')}
    help) values=(${verbs.map(({ name }) => name).join(' ')}) ;;
  esac
  if [[ $PREFIX == -* ]]; then
    _describe -t options option options
  else
    (( $#values )) && compadd -a values
    _files
  fi
}
if [[ $funcstack[1] == _auth_relay || $funcstack[1] == _auth-relay ]]; then
  _auth_relay "$@"
else
  compdef _auth_relay auth-relay
fi
`
}

function fish(verbs: readonly VerbWords[]): string {
  const names = verbs.map(({ name }) => name).join(' ')
  const start = 'complete -c auth-relay'
  const lines = verbs.flatMap(({ name, about, options, values }) => {
    const after = `${start} -n '__fish_seen_subcommand_from ${name}'`
    return [
      `${start} -f -n '__fish_use_subcommand' -a ${name} -d ${shellQuoted(about)}`,
      ...options.map(
        option =>
          `${after} -l ${option.name.replace(/^--/, '')}${option.takesValue ? ' -r' : ''} -d ${shellQuoted(option.about)}`,
      ),
      ...(values.length === 0 ? [] : [`${after} -a '${values.join(' ')}'`]),
    ]
  })
  return `${[
    ...lines,
    `${start} -f -n '__fish_use_subcommand' -a help -d 'explain a command'`,
    `${start} -f -n '__fish_use_subcommand' -l version -d 'print the version'`,
    `${start} -f -n '__fish_seen_subcommand_from help' -a '${names}'`,
  ].join('\n')}\n`
}

/** In single quotes, as every one of these shells reads them. */
const shellQuoted = (text: string): string => `'${text.replaceAll("'", '’')}'`
