import {
  formatHandoff,
  formatHandoffReply,
  MAX_READ_AHEAD,
  parseHandoff,
  parseHandoffReply,
} from '../../../src/wire/workers/maildrop-worker.ts'
import {
  formatStarterOrder,
  formatStarterReply,
  formatStrings,
  MAX_STARTER_BLOCK,
  parseStarterOrder,
  parseStarterReply,
  parseStrings,
} from '../../../src/wire/workers/starter.ts'
import { parseTlsWorkerAnswer } from '../../../src/wire/workers/tls-worker.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'
import type { Random } from './random.ts'

const LINES = [
  formatHandoff({ n: 7, octets: 131_072, ticket: 'session v=1 id=7f3a.12 x' }),
  formatHandoffReply({ type: 'open' }),
  formatHandoffReply({ type: 'ended', n: 7 }),
  formatHandoffReply({ type: 'closing' }),
  formatStarterOrder({ type: 'program', args: 1, files: 1024, octets: 20 }),
  formatStarterOrder({ type: 'start', n: 7, without: 1, octets: 1_048_576 }),
  formatStarterOrder({ type: 'kill', pid: 4711 }),
  formatStarterOrder({ type: 'ping', n: 1 }),
  formatStarterReply({ type: 'ready' }),
  formatStarterReply({ type: 'started', n: 7, pid: 4711 }),
  formatStarterReply({ type: 'failed', n: 7, errno: 2 }),
  formatStarterReply({ type: 'ended', pid: 4711, status: 255 }),
  formatStarterReply({ type: 'ended', pid: 4711, signal: 9 }),
  formatStarterReply({ type: 'pong', n: 1 }),
]
const NUMBERS = ['131073', '1048577', '2147483648', '-1', '01', '1', 'pid=1', 'pid=0', 'status=256', 'signal=128']

/** A line that is understood has one form: its own. */
function lines(random: Random): void {
  const line = mutated(random, random.pick(LINES), [...LINES, ...NUMBERS])
  const handoff = parseHandoff(line)
  promise(handoff === undefined || formatHandoff(handoff) === line, 'another handoff', line)
  promise(handoff === undefined || handoff.octets <= MAX_READ_AHEAD, 'too many octets', line)
  const reply = parseHandoffReply(line)
  promise(reply === undefined || formatHandoffReply(reply) === line, 'another reply', line)
  const order = parseStarterOrder(line)
  promise(order === undefined || formatStarterOrder(order) === line, 'another order', line)
  const isLarge = order !== undefined && 'octets' in order && order.octets > MAX_STARTER_BLOCK
  promise(!isLarge, 'a block that is too large', line)
  promise(order?.type !== 'kill' || order.pid > 1, 'a signal for more than one process', line)
  const answer = parseStarterReply(line)
  promise(answer === undefined || formatStarterReply(answer) === line, 'another answer', line)
}

function strings(random: Random): void {
  const text = mutated(random, '/usr/sbin/smtpd\0-v\0TCPREMOTEIP=192.0.2.7\0', ['\0', 'RELAYCLIENT=\0'])
  const block = Buffer.from(text, 'latin1')
  const found = parseStrings(block)
  promise((found === undefined) === (block.length > 0 && block.at(-1) !== 0), 'a string without an end', text)
  if (found === undefined) return
  promise(formatStrings(found).equals(block), 'another block', text)
}

const ANSWERS = [
  { type: 'serving', metrics: '127.0.0.1:9100' },
  { type: 'refused', reason: 'no certificate' },
].map(answer => JSON.stringify(answer))

function tlsWorker(random: Random): void {
  const text = mutated(random, random.pick(ANSWERS), [...ANSWERS, '"metrics":null', '"reason":7', 'null', '[]'])
  let message: unknown
  try {
    message = JSON.parse(text)
  } catch {
    return // the channel drops it before the reader
  }
  const answer = parseTlsWorkerAnswer(message)
  if (answer?.type === 'refused') promise(answer.reason.length <= 2000, 'a long reason', text)
  if (answer?.type === 'serving') promise((answer.metrics ?? '').length <= 100, 'a long address', text)
}

/** Lines and messages between processes of the project, which one of them may have made up. */
export const workerLines: FuzzTarget = {
  name: 'worker-lines',
  attempt: random => random.pick([lines, lines, strings, tlsWorker])(random),
}
