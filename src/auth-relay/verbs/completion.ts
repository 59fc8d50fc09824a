/** The verb `completion`, and the scripts for bash, zsh and fish. */
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
        kind: 'command',
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
  /** Arguments other than files and names; of a verb with actions the actions. */
  readonly values: readonly string[]
  readonly actions: readonly VerbWords[]
}

const wordsOf = (command: Command): VerbWords => ({
  name: command.name(),
  about: command.description(),
  options: [
    ...command.options.flatMap(({ long, description, required, hidden }) =>
      long && !hidden ? [{ name: long, about: description, takesValue: required }] : [],
    ),
    { name: '--help', about: 'print the usage of the command', takesValue: false },
  ],
  values: VALUES[command.name()] ?? command.commands.map(action => action.name()),
  actions: command.commands.map(wordsOf),
})

/**
 * A script for the shell. It offers the verbs, then the options and arguments of the verb, or files
 * if the verb takes a file.
 */
export function shellCompletion(shell: Shell, program: Command): string {
  const verbs = program.commands.map(wordsOf)
  switch (shell) {
    case 'bash':
      return bash(verbs)
    case 'zsh':
      return zsh(verbs)
    case 'fish':
      return fish(verbs)
  }
}

type Case = Pick<VerbWords, 'options' | 'values'> & { readonly pattern: string }

/** For the `case` of bash and zsh about "VERB ACTION", actions first. */
const casesOf = (verbs: readonly VerbWords[]): readonly Case[] =>
  verbs.flatMap(({ name, actions, options, values }) => [
    ...actions.map(action => ({ ...action, pattern: `"${name} ${action.name}"` })),
    { options, values, pattern: `"${name} "*` },
  ])

function bash(verbs: readonly VerbWords[]): string {
  const names = verbs.map(({ name }) => name).join(' ')
  const cases = casesOf(verbs).map(
    ({ pattern, options, values }) =>
      `    ${pattern}) options="${options.map(option => option.name).join(' ')}" values="${values.join(' ')}" ;;`,
  )
  return `_auth_relay() {
  local word=\${COMP_WORDS[COMP_CWORD]} verb=\${COMP_WORDS[1]} action=\${COMP_WORDS[2]} options= values=
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "${names} help --help --version" -- "$word"))
    return
  fi
  [ "$COMP_CWORD" = 2 ] && action=
  case "$verb $action" in
${cases.join('\n')}
    "help "*) values="${names}" ;;
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
  const cases = casesOf(verbs).map(
    ({ pattern, options, values }) => `    ${pattern})
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
  local action=
  (( CURRENT > 3 )) && action=$words[3]
  case "$words[2] $action" in
${cases.join('\n')}
    "help "*) values=(${verbs.map(({ name }) => name).join(' ')}) ;;
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
  const linesOf = (condition: string, { options, values }: Pick<VerbWords, 'options' | 'values'>) => {
    const after = `${start} -n '${condition}'`
    return [
      ...options.map(
        option =>
          `${after} -l ${option.name.replace(/^--/, '')}${option.takesValue ? ' -r' : ''} -d ${shellQuoted(option.about)}`,
      ),
      ...(values.length === 0 ? [] : [`${after} -a '${values.join(' ')}'`]),
    ]
  }
  const seen = (...names: readonly string[]): string => `__fish_seen_subcommand_from ${names.join(' ')}`
  const lines = verbs.flatMap(verb => {
    const { name, about, actions } = verb
    // The name of an action may also be a verb, as `show` is.
    const others = verbs.filter(other => other.actions.some(action => action.name === name)).map(other => other.name)
    const notIn = others.length === 0 ? '' : `; and not ${seen(...others)}`
    const noAction = actions.length === 0 ? '' : `; and not ${seen(...actions.map(action => action.name))}`
    return [
      `${start} -f -n '__fish_use_subcommand' -a ${name} -d ${shellQuoted(about)}`,
      ...linesOf(`${seen(name)}${notIn}${noAction}`, verb),
      ...actions.flatMap(action => linesOf(`${seen(name)}; and ${seen(action.name)}`, action)),
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
