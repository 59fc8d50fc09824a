import { connect } from 'node:net'
import { formatRelayQuestion, MAX_RELAY_QUESTION_LINE, parseRelayAnswer } from '../wire/relay-question.ts'
import type { AskGrant } from './decision.ts'

/** Asks the resident gate's question socket, one connection a question: many times cheaper than a database login. */
export const askSocket =
  (path: string): AskGrant =>
  (ip, signal) =>
    new Promise((resolve, reject) => {
      const socket = connect({ path })
      let heard = ''
      const fail = (error: Error) => {
        socket.destroy()
        reject(error)
      }
      signal.addEventListener('abort', () => fail(new Error('the question socket did not answer in time')), {
        once: true,
      })
      socket.on('error', fail)
      socket.on('end', () => fail(new Error('the question socket closed without an answer')))
      socket.on('data', piece => {
        heard += piece.toString('latin1')
        const end = heard.indexOf('\n')
        if (end < 0 && heard.length <= MAX_RELAY_QUESTION_LINE) return
        const answer = parseRelayAnswer(heard.slice(0, Math.max(end, 0)))
        if (answer === undefined) return fail(new Error('the question socket answers in another language'))
        if (answer.verdict === 'unknown') return fail(new Error('the resident gate has no answer'))
        socket.destroy()
        resolve(answer.verdict === 'yes' ? { until: answer.until, login: answer.login } : undefined)
      })
      socket.write(`${formatRelayQuestion({ ip })}\n`)
    })
