/**
 * The verbs that close the relay and open it again: block, unblock, and revoke, the older name of
 * both.
 */
import { resolve } from 'node:path'
import { printToStandardError } from '../../../base/log.ts'
import type { BlockTarget } from '../../../grants/grant-store.ts'
import { formatTarget, readBlockTarget, readPeriod, readReason } from '../../grant-target.ts'
import { operatorName, withGrants } from '../../site-database.ts'
import { formatMoment } from '../../text/moment.ts'
import { printable } from '../../text/terminal.ts'
import type { Action, Surroundings, Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

type BlockOptions = { config: string; login?: true; for?: string; reason: string; json?: true }
type Command = Extract<Action, { readonly kind: 'command' }>
type UnblockOptions = { config: string; login?: true; json?: true }

const WHOM = ['<whom>', 'address, network or login name'] as const
const LOGIN = ['--login', 'a login name, even if it looks like an address'] as const
const FOR = ['--for <time>', 'how long: 90s, 30min, 8h, 2d; without it until auth-relay unblock'] as const
const REASON = ['--reason <text>', 'text that show and explain print', 'no reason given'] as const
const JSON_OPTION = ['--json', 'print one JSON object'] as const

/** `auth-relay block`: deletes the grants of an address, network or login and prevents new ones. */
export const block: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('block'))
    .description('close the relay for an address, a network or a login')
    .argument(...WHOM)
    .option(...LOGIN)
    .option(...FOR)
    .option(...REASON)
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      `
Examples:
  auth-relay block 192.0.2.7 --for 24h --reason 'spam run, ticket 4711'
  auth-relay block ann@example.org

A login that was never seen is blocked too, and the command reports that it was never seen.
The command deletes existing grants and prevents new ones until the block ends.
A block overrides every login and every allowance. An open SMTP session can send no
further message if wrap.front, the policy service or Exim's query is in use; else it
keeps the relay until it ends. Logins by POP3 still work.`,
    )
    .action((whom: string, options: BlockOptions) => choose(blocking(whom, options, surroundings)))
}

/** `auth-relay unblock`: ends a block. */
export const unblock: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('unblock'))
    .description('end a block; the next login opens the relay again')
    .argument(...WHOM)
    .option(...LOGIN)
    .option(...JSON_OPTION)
    .addHelpText('after', '\nExit status 1 if nothing was blocked.')
    .action((whom: string, options: UnblockOptions) => choose(unblocking(whom, options, surroundings)))
}

/** `auth-relay revoke`: the older name of both verbs, with a warning on standard error. */
export const revoke: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('revoke'))
    .description('older name of block, and with --end of unblock')
    .argument(...WHOM)
    .option(...LOGIN)
    .option(...FOR)
    .option(...REASON)
    .option('--end', 'end the block')
    .option(...JSON_OPTION)
    .action((whom: string, options: BlockOptions & { end?: true }) => {
      const isEnd = options.end === true
      const action = isEnd ? unblocking(whom, options, surroundings) : blocking(whom, options, surroundings)
      const warning = `auth-relay: revoke is the older name: write ${isEnd ? 'unblock' : 'block'}\n`
      choose({
        kind: 'command',
        run: async () => {
          printToStandardError(warning)
          return action.run()
        },
      })
    })
}

function blocking(whom: string, options: BlockOptions, surroundings: Surroundings): Command {
  const target = readBlockTarget(whom, options.login)
  const forSeconds = readPeriod(options.for)
  const reason = readReason(options.reason)
  const report = reportAbout(target, options, surroundings)
  return {
    kind: 'command',
    run: () =>
      withGrants(resolve(options.config), surroundings, async admin => {
        const owner = operatorName(surroundings.environment)
        const { removed, until } = await admin.block(target, { forSeconds, reason, owner })
        const end = until === null ? 'until auth-relay unblock ends the block' : `until ${formatMoment(until)}`
        const grants = `${removed} ${removed === 1 ? 'grant' : 'grants'} deleted`
        // The block applies nevertheless, because a login that is not in the history may come.
        const known = target.kind === 'network' || removed > 0 || (await admin.isKnownLogin(target.login))
        const json = { removed, until: until?.toISOString() ?? null, ...(target.kind === 'login' ? { known } : {}) }
        report(json, text => `${text} is blocked ${end}. ${grants}.${known ? '' : unknownLogin(text, options)}`)
        return 0
      }),
  }
}

function unblocking(whom: string, options: UnblockOptions, surroundings: Surroundings): Command {
  const target = readBlockTarget(whom, options.login)
  const report = reportAbout(target, options, surroundings)
  return {
    kind: 'command',
    run: () =>
      withGrants(resolve(options.config), surroundings, async admin => {
        const ended = await admin.unblock(target)
        report({ ended }, text =>
          ended === 0 ? `${text} was not blocked.` : `${text} can be granted at the next login.`,
        )
        return ended === 0 ? 1 : 0
      }),
  }
}

const unknownLogin = (login: string, { login: isForced }: BlockOptions): string =>
  `\n${login} was never seen: no login of that name is in the history. Check the spelling: auth-relay report` +
  `\nTo end the block: auth-relay unblock ${isForced === true ? '--login ' : ''}${login}`

/** Prints a result as JSON or as a sentence about the target. */
function reportAbout(target: BlockTarget, options: UnblockOptions, { print }: Surroundings) {
  const text = target.kind === 'network' ? formatTarget(target.network) : printable(target.login)
  return (json: object, sentence: (text: string) => string): void =>
    print(options.json === true ? `${JSON.stringify({ [target.kind]: text, ...json })}\n` : `${sentence(text)}\n`)
}
