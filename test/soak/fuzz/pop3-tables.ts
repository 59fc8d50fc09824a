import {
  AUTHORIZATION_START,
  type AuthorizationOptions,
  type AuthorizationState,
  type AuthorizationStep,
  afterFailure,
  lineLimit,
  runAuthorization,
  sanitizedLine,
} from '../../../src/pop3/authorization.ts'
import { formatListing, runTransaction, startTransaction } from '../../../src/pop3/transaction.ts'
import { type Line, LineReader } from '../../../src/wire/lines.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'
import { POP3_COMMANDS } from './pop3-commands.ts'
import type { Random } from './random.ts'

const REPLY = /^(?:\+OK |-ERR |\+ )[^\r\n]*\r\n(?:(?!\.\r\n)[^\r\n]+\r\n)*(?:\.\r\n)?$/
const SECRET = 'c2VzYW1l'

const lineOf = (random: Random, limit: number): Line => {
  const text = random.oneIn(3) ? mutated(random, random.pick(POP3_COMMANDS), POP3_COMMANDS) : random.pick(POP3_COMMANDS)
  const reader = new LineReader()
  reader.push(Buffer.from(`${text}\n`, 'latin1'))
  return reader.next(limit) ?? { kind: 'tooLong' }
}

/**
 * Lines before login. Each line has an answer, a secret appears only in `authenticate`, a password
 * is not accepted where it is forbidden, and the number of tries is limited.
 */
function authorization(random: Random): void {
  const options: AuthorizationOptions = {
    compat: random.pick(['none', 'none', 'qmail']),
    cleartext: random.pick(['all', 'none', (login: string) => login === 'ann']),
    preamble: random.oneIn(2),
    tries: 1 + random.int(3),
    capabilities: {
      user: true,
      sasl: ['PLAIN', 'LOGIN'],
      stls: random.oneIn(2),
      loginDelay: 0,
      expire: 'NEVER',
      implementation: 'auth-relay',
    },
  }
  let state: AuthorizationState = AUTHORIZATION_START
  const answers: string[] = []
  const follow = (step: AuthorizationStep): boolean => {
    state = step.state
    promise(step.effects.length > 0, 'no answer', answers)
    for (const effect of step.effects) {
      if (effect.kind === 'reply') promise(REPLY.test(effect.text), `reply ${JSON.stringify(effect.text)}`, answers)
      if (effect.kind === 'preamble') promise(answers.length === 1 && options.preamble, 'SSL came too late', answers)
      if (effect.kind === 'startTls') promise(options.capabilities.stls, 'STLS was not offered', answers)
      if (effect.kind === 'authenticate') {
        const { login, secret, method } = effect
        promise(login !== '' || method === 'apop', 'a login without a name', answers)
        promise(!`${login}${secret}`.includes('\0'), 'a NUL in name or secret', answers)
        const isClear = options.cleartext === 'all' || (typeof options.cleartext === 'function' && login === 'ann')
        promise(isClear || method === 'apop', 'a password in clear text', answers)
      }
    }
    return step.effects.some(({ kind: type }) => type === 'close')
  }
  for (let left = 1 + random.int(10); left > 0; left--) {
    const line = lineOf(random, lineLimit(state))
    const shown = sanitizedLine(state, line)
    if (line.kind === 'line') answers.push(line.text)
    else answers.push(line.kind)
    promise(
      !/^PASS [^*]/.test(shown) && (state.awaiting === 'command' || !shown.includes(SECRET)),
      'a secret for the log',
      answers,
    )
    const step = runAuthorization(state, line, options)
    if (follow(step)) return
    if (!step.effects.some(({ kind: type }) => type === 'authenticate')) continue
    const closed = follow(afterFailure(state, random.pick(['credentials', 'temporary', 'crashed']), options))
    promise(closed || state.failures < options.tries, 'tries are never used up', answers)
    if (closed) return
  }
}

/**
 * Lines after login. Each line has an answer, only existing messages are sent or marked, and only
 * QUIT enters UPDATE.
 */
function transaction(random: Random): void {
  const count = random.int(5)
  const maildrop = {
    count,
    octets: () => 120,
    uniqueId: (number: number) => `id${number}`,
    totalOctets: () => 120 * count,
  }
  const compat = random.pick(['none', 'qmail'] as const)
  const state = startTransaction(maildrop, { compat, capabilities: ['TOP', 'UIDL'] })
  const answers: unknown[] = []
  for (let left = 1 + random.int(10); left > 0; left--) {
    const line = lineOf(random, 512)
    answers.push(line)
    const before = new Set(state.deleted)
    const effects = runTransaction(state, line)
    promise(effects.length > 0, 'no answer', answers)
    for (const effect of effects) {
      if (effect.kind === 'reply') promise(REPLY.test(effect.text), `reply ${JSON.stringify(effect.text)}`, answers)
      if (effect.kind === 'listing')
        promise(REPLY.test(formatListing(maildrop, effect.of, state.deleted)), 'listing', answers)
      if (effect.kind === 'message')
        promise(effect.number >= 1 && effect.number <= count && !before.has(effect.number), 'no such message', answers)
      if (effect.kind === 'enterUpdate')
        promise(line.kind === 'line' && /^quit(?: |$)/i.test(line.text), 'UPDATE without QUIT', answers)
    }
    for (const number of state.deleted) promise(number >= 1 && number <= count, 'marks what is not there', answers)
    if (effects.some(({ kind: type }) => type === 'close' || type === 'enterUpdate')) return
  }
}

/** Both state tables. */
export const pop3Tables: FuzzTarget = {
  name: 'pop3-tables',
  attempt: random => (random.oneIn(2) ? authorization(random) : transaction(random)),
}
