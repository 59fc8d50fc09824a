import { Argument } from 'commander'
import { SHELLS, type Shell, shellCompletion } from '../shell-completion.ts'
import type { Verb } from '../verb.ts'

/** `auth-relay completion`: what the shell needs to complete verbs and options. */
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
