import { createServer, type Server } from 'node:net'
import { LineSplitter } from '../wire/line-splitter.ts'
import { formatRelayAnswer, MAX_RELAY_QUESTION_LINE, type RelayAnswer } from '../wire/relay-answer.ts'
import { parseRelayQuestion } from '../wire/relay-question.ts'
import { logAnswer } from './decision.ts'
import type { DoorOptions } from './door-options.ts'

/** Questions as lines, `relay v=1 ip=ADDRESS`, answered in order: for the exec door and for Exim's `readsocket` (docs/WIRE.md). `options` is asked for each. */
export function questionDoor(options: () => DoorOptions): Server {
  const answerTo = async (line: string): Promise<RelayAnswer> => {
    const { decide, onDecision, log } = options()
    const question = parseRelayQuestion(line)
    if (question === undefined) return { verdict: 'unknown' }
    const decision = await decide(question.ip)
    logAnswer(log, decision, { ip: question.ip, door: 'question' })
    onDecision(question.ip, decision)
    if (!decision.relay) return { verdict: decision.error === undefined ? 'no' : 'unknown' }
    return { verdict: 'yes', until: decision.until ?? END_OF_TIME, login: decision.login }
  }
  // Exim closes its half of the connection as soon as it has asked.
  return createServer({ allowHalfOpen: true }, socket => {
    const splitter = new LineSplitter(MAX_RELAY_QUESTION_LINE)
    let last: Promise<void> = Promise.resolve()
    const ask = (line: string) => {
      const answer = answerTo(line)
      last = last.then(async () => {
        socket.write(`${formatRelayAnswer(await answer)}\n`)
      })
    }
    socket.on('error', () => socket.destroy()) // whoever asked is gone
    socket.on('data', chunk => {
      const { lines, overlong } = splitter.push(chunk)
      for (const line of lines) ask(line)
      if (overlong > 0 || splitter.pending > MAX_RELAY_QUESTION_LINE) socket.destroy()
    })
    socket.on('end', () => {
      last = last.then(() => void socket.end())
    })
  })
}

/** For an allowance that has no end: an end that is a number all the same. */
const END_OF_TIME = 253_402_300_799
