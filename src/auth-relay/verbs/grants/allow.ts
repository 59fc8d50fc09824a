/** The verb that opens the relay without a login, and its answers for networks that are refused. */
import { resolve } from 'node:path'
import type { GrantRefusal } from '../../../grants/grant-store.ts'
import { formatTarget, readNetwork, readPeriod, readReason } from '../../grant-target.ts'
import { operatorName, withGrants } from '../../site-database.ts'
import { formatMoment } from '../../text/moment.ts'
import type { Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

type Options = { config: string; for?: string; reason: string; end?: true; json?: true }

const WHY: Readonly<Record<GrantRefusal, string>> = {
  loopback: 'it contains loopback addresses',
  never: 'it contains addresses that are never granted (never_grant, link-local, multicast)',
  proxy: 'it contains the address of a proxy (popup.ssl_hack_trust, popup.proxy_trust, wrap.proxy_trust)',
  own: 'it contains an address of this host',
  private: 'deny_private is set',
  blocked: 'it is blocked. To end the block: auth-relay unblock',
}

/** `auth-relay allow`: an address or network relays without a login. */
export const allow: Verb = (program, surroundings, choose) => {
  const { print } = surroundings
  withConfigOption(program.command('allow'))
    .description('let an address or network relay without a login')
    .argument('<address>', 'address or network')
    .option('--for <time>', 'how long: 90s, 30min, 8h, 2d; without it until it is ended')
    .option('--reason <text>', 'text that show and explain print', 'no reason given')
    .option('--end', 'end what was allowed before')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay allow 192.0.2.7 --for 8h --reason 'scanner on the second floor'
  auth-relay allow 2001:db8:1::/64
  auth-relay allow 192.0.2.7 --end

Exit status 1 if the network can never be granted, or with --end if nothing was allowed.`,
    )
    .action((address: string, options: Options) => {
      const network = readNetwork(address)
      const forSeconds = readPeriod(options.for)
      const reason = readReason(options.reason)
      const text = formatTarget(network)
      const report = (json: object, sentence: string): void =>
        print(options.json === true ? `${JSON.stringify({ network: text, ...json })}\n` : `${sentence}\n`)
      choose({
        type: 'command',
        run: () =>
          withGrants(resolve(options.config), surroundings, async admin => {
            if (options.end === true) {
              const ended = await admin.disallow(network)
              report(
                { ended },
                ended === 0 ? `${text} was not allowed.` : `${text} is no longer allowed to relay without a login.`,
              )
              return ended === 0 ? 1 : 0
            }
            const answer = await admin.allow(network, {
              forSeconds,
              reason,
              owner: operatorName(surroundings.environment),
            })
            if ('refused' in answer) {
              report({ refused: answer.refused }, `${text} cannot be allowed: ${WHY[answer.refused]}.`)
              return 1
            }
            const end = answer.until === null ? 'until you end it' : `until ${formatMoment(answer.until)}`
            const exceptions = [...new Set(answer.exceptions.map(formatTarget))]
            const never = exceptions.length === 0 ? '' : ` Never granted in it: ${exceptions.join(', ')}.`
            report(
              { until: answer.until?.toISOString() ?? null, exceptions },
              `${text} may relay without a login ${end}.${never}`,
            )
            return 0
          }),
      })
    })
}
