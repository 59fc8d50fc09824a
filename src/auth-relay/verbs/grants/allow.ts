/** The verbs that open the relay without a login and end that: allow and disallow. */
import { resolve } from 'node:path'
import type { GrantRefusal } from '../../../grants/grant-store.ts'
import { formatTarget, readNetwork, readPeriod, readReason } from '../../grant-target.ts'
import { operatorName, withGrants } from '../../site-database.ts'
import { formatMoment } from '../../text/moment.ts'
import type { Action, Surroundings, Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

type Options = { config: string; json?: true }
type AllowOptions = Options & { for?: string; reason: string; end?: true }
type Command = Extract<Action, { readonly kind: 'command' }>

const WHERE = ['<address>', 'address or network'] as const
const JSON_OPTION = ['--json', 'print one JSON object'] as const

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
  withConfigOption(program.command('allow'))
    .description('let an address or network relay without a login')
    .argument(...WHERE)
    .option('--for <time>', 'how long: 90s, 30min, 8h, 2d; without it until auth-relay disallow')
    .option('--reason <text>', 'text that show and explain print', 'no reason given')
    .option('--end', 'the same as auth-relay disallow')
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      `
Examples:
  auth-relay allow 192.0.2.7 --for 8h --reason 'scanner on the second floor'
  auth-relay allow 2001:db8:1::/64

Exit status 1 if the network can never be granted.`,
    )
    .action((address: string, options: AllowOptions) =>
      choose((options.end === true ? disallowing : allowing)(address, options, surroundings)),
    )
}

/** `auth-relay disallow`: ends an allowance. */
export const disallow: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('disallow'))
    .description('end an allowance; the address needs a login again')
    .argument(...WHERE)
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      `
Example:
  auth-relay disallow 192.0.2.7

Exit status 1 if nothing was allowed.`,
    )
    .action((address: string, options: Options) => choose(disallowing(address, options, surroundings)))
}

function allowing(address: string, options: AllowOptions, surroundings: Surroundings): Command {
  const network = readNetwork(address)
  const forSeconds = readPeriod(options.for)
  const reason = readReason(options.reason)
  const text = formatTarget(network)
  const report = reportAbout(text, options, surroundings)
  return {
    kind: 'command',
    run: () =>
      withGrants(resolve(options.config), surroundings, async admin => {
        const owner = operatorName(surroundings.environment)
        const answer = await admin.allow(network, { forSeconds, reason, owner })
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
  }
}

function disallowing(address: string, options: Options, surroundings: Surroundings): Command {
  const network = readNetwork(address)
  const text = formatTarget(network)
  const report = reportAbout(text, options, surroundings)
  return {
    kind: 'command',
    run: () =>
      withGrants(resolve(options.config), surroundings, async admin => {
        const ended = await admin.disallow(network)
        report(
          { ended },
          ended === 0 ? `${text} was not allowed.` : `${text} is no longer allowed to relay without a login.`,
        )
        return ended === 0 ? 1 : 0
      }),
  }
}

/** Prints a result as JSON or as a sentence. */
const reportAbout =
  (network: string, { json }: Options, { print }: Surroundings) =>
  (value: object, sentence: string): void =>
    print(json === true ? `${JSON.stringify({ network, ...value })}\n` : `${sentence}\n`)
