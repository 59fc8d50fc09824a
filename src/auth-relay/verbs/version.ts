import manifest from '../../../package.json' with { type: 'json' }
import type { Verb } from '../verb.ts'

/** `auth-relay version`: the same as `--version`. */
export const version: Verb = (program, { print }, choose) => {
  program
    .command('version')
    .description('print the version')
    .action(() => {
      choose({
        type: 'command',
        run: async () => {
          print(`auth-relay ${manifest.version}\n`)
          return 0
        },
      })
    })
}
