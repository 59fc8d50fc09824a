import { resolve } from 'node:path'
import { UsageFault } from '../../../base/errors.ts'
import type { Explanation, Rule } from '../../../grants/grant-store.ts'
import { formatDuration, parseDuration } from '../../../settings/duration.ts'
import { readAddress } from '../../grant-target.ts'
import { withGrants } from '../../site-database.ts'
import { formatMoment, parseMoment } from '../../text/moment.ts'
import { printable, styleFor } from '../../text/terminal.ts'
import type { Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

type Options = { config: string; at?: string; json?: true }

/** `auth-relay explain`: would mail from an address be relayed, now or then, and by which rule. */
export const explain: Verb = (program, surroundings, choose) => {
  const { print, isTerminal, environment } = surroundings
  withConfigOption(program.command('explain'))
    .description('would mail from an address be relayed, by whose login and until when, or which rule says no')
    .argument('<address>', 'numeric address')
    .option('--at <time>', "a past moment: '2026-11-22 18:24', 18:24, 2026-11-22T18:24:58Z, or 2h for two hours ago")
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay explain 192.0.2.7
  auth-relay explain 192.0.2.7 --at '2026-11-22 18:24'

Exit status 0 if mail would be relayed, 1 if not.`,
    )
    .action((address: string, options: Options) => {
      const ip = readAddress(address)
      const at = readMoment(options.at)
      choose({
        type: 'command',
        run: () =>
          withGrants(resolve(options.config), surroundings, async (admin, { grants }) => {
            const explanation = await admin.explain(ip, at)
            print(
              options.json === true
                ? `${JSON.stringify(jsonOf(explanation))}\n`
                : formatExplanation(explanation, at !== null, grants.exp_time, styleFor(isTerminal, environment)),
            )
            return explanation.relay ? 0 : 1
          }),
      })
    })
}

function readMoment(text: string | undefined): Date | null {
  if (text === undefined) return null
  const now = new Date()
  const moment = parseMoment(text, now, parseDuration)
  if (moment === undefined) {
    throw new UsageFault(`--at ${text} is no time: write '2026-11-22 18:24', 18:24, 2026-11-22T18:24:58Z or 2h`)
  }
  if (moment > now) throw new UsageFault(`--at ${text} is in the future: nobody knows who will log in`)
  return moment
}

const jsonOf = ({ ip, at, relay, decided, rules }: Explanation) => ({
  ip,
  at: at.toISOString(),
  relay,
  rule: decided.rule,
  detail: decided.detail,
  until: decided.until?.toISOString() ?? null,
  rules: rules.map(rule => ({
    rule: rule.rule,
    relay: rule.relay,
    detail: rule.detail,
    since: rule.since?.toISOString() ?? null,
    until: rule.until?.toISOString() ?? null,
  })),
})

/** The explanation in words: the answer, the rule that gave it, what to do, and everything else that is known. */
export function formatExplanation(
  { ip, at, relay, decided, rules }: Explanation,
  isPast: boolean,
  expTime: number,
  style: Pick<ReturnType<typeof styleFor>, 'good' | 'bad' | 'faint'>,
): string {
  const when = isPast ? `At ${formatMoment(at)} mail from ${ip} was` : `Mail from ${ip} is`
  const answer = relay ? style.good(`${when} relayed.`) : style.bad(`${when} not relayed.`)
  const lines = [answer, `  ${ruleInWords(decided, at)}`]
  const advice = isPast ? undefined : adviceFor(decided, expTime)
  if (advice !== undefined) lines.push(`  ${advice}`)
  const others = rules.filter(rule => rule !== decided)
  if (others.length > 0) lines.push(style.faint('Also known:'), ...others.map(rule => `  ${ruleInWords(rule, at)}`))
  return `${lines.join('\n')}\n`
}

/** Texts of the rules for people. The names are for scripts. */
const LEADS: Readonly<Record<Rule['rule'], string>> = {
  'never-granted': 'Never granted',
  block: 'Revoked',
  allowance: 'Allowed without a login',
  grant: 'Opened by',
  login: 'Opened by',
  'refused-login': 'Login refused',
  expired: 'Closed again',
  'never-seen': 'Never seen',
}

function ruleInWords({ rule, relay, detail, since, until }: Rule, at: Date): string {
  const left = until === null ? 0 : (until.getTime() - at.getTime()) / 1000
  const distance = left <= 0 ? `${formatDuration(-left)} ago` : `${formatDuration(left)} left`
  const times = [
    since === null
      ? ''
      : `${rule === 'grant' || rule === 'login' || rule === 'expired' ? 'at' : 'since'} ${formatMoment(since)}`,
    until === null ? '' : `${rule === 'expired' && left > 0 ? 'would have lasted ' : ''}until ${formatMoment(until)}`,
    until !== null && (relay || (rule === 'expired' && left <= 0)) ? `(${distance})` : '',
  ].filter(text => text !== '')
  return `${LEADS[rule]}: ${[printable(detail), times.join(' ')].filter(text => text !== '').join(', ')}`
}

function adviceFor({ rule, relay, detail }: Rule, expTime: number): string | undefined {
  if (relay) return undefined
  switch (rule) {
    case 'block':
      return 'What to do: auth-relay show lists the blocks. To end one: auth-relay unblock WHOM.'
    case 'never-granted':
      return 'What to do: give relay rights to such an address in the SMTP server itself, or change [grants] of the settings.'
    case 'refused-login':
      return `What to do: the password was right; the reason for the refusal is ${printable(detail.split(': ').at(-1) ?? '')}. Change [grants] in the settings, or end the block: auth-relay unblock WHOM.`
    case 'expired':
      return `What to do: open the mailbox by POP3 from there again; each login opens the relay for ${formatDuration(expTime)}.`
    default:
      return `What to do: open the mailbox by POP3 from there; that opens the relay for ${formatDuration(expTime)}. If a login was made, it came from another address: see auth-relay show. To open the relay without a login: auth-relay allow.`
  }
}
