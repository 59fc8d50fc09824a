import { resolve } from 'node:path'
import { withGrants } from '../grant-administration.ts'
import { formatTarget, readBlockTarget, readPeriod } from '../grant-target.ts'
import { formatMoment } from '../moment.ts'
import { operatorName } from '../operator-name.ts'
import { printable } from '../printable.ts'
import { withConfigOption } from '../settings-option.ts'
import type { Verb } from '../verb.ts'

type Options = { config: string; for?: string; reason: string; end?: true; json?: true }

/** `auth-relay revoke`: takes the grants of an address, network or login away, and keeps new ones away. */
export const revoke: Verb = (program, surroundings, choose) => {
  const { print } = surroundings
  withConfigOption(program.command('revoke'))
    .description('take the grants of an address, network or login away, and give no new ones')
    .argument('<whom>', 'address, network or login name')
    .option('--for <time>', 'how long: 90s, 30m, 8h, 2d; without it until it is ended')
    .option('--reason <text>', 'why, for whoever reads show and explain', 'no reason given')
    .option('--end', 'give grants again')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay revoke 192.0.2.7 --for 24h --reason 'spam run, ticket 4711'
  auth-relay revoke ann@example.org
  auth-relay revoke 192.0.2.7 --end

The relay closes at once for new SMTP connections; one that is open keeps what it has.
Logins by POP3 go on.
Exit status 1 with --end if nothing was revoked.`,
    )
    .action((whom: string, options: Options) => {
      const target = readBlockTarget(whom)
      const forSeconds = readPeriod(options.for)
      const text = target.kind === 'network' ? formatTarget(target.network) : printable(target.login)
      const say = (json: object, sentence: string): void =>
        print(options.json === true ? `${JSON.stringify({ [target.kind]: text, ...json })}\n` : `${sentence}\n`)
      choose({
        type: 'command',
        run: () =>
          withGrants(resolve(options.config), surroundings, async admin => {
            if (options.end === true) {
              const ended = await admin.unblock(target)
              say(
                { ended },
                ended === 0 ? `${text} was not revoked.` : `${text} can be granted again, at the next login.`,
              )
              return ended === 0 ? 1 : 0
            }
            const decree = { forSeconds, reason: options.reason, owner: operatorName(surroundings.environment) }
            const { removed, until } = await admin.block(target, decree)
            const end = until === null ? 'until you end it' : `until ${formatMoment(until)}`
            const grants = `${removed} ${removed === 1 ? 'grant' : 'grants'}`
            say(
              { removed, until: until?.toISOString() ?? null },
              `${text}: ${grants} taken away, and no new ones ${end}.`,
            )
            return 0
          }),
      })
    })
}
