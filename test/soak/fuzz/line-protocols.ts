import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { parseKeyValues } from '../../../src/wire/key-values.ts'
import { LineSplitter } from '../../../src/wire/lines.ts'
import {
  formatLoginAnswer,
  formatLoginEvent,
  MAX_LOGIN_EVENT_LINE,
  parseLoginAnswer,
  parseLoginEvent,
} from '../../../src/wire/login-event.ts'
import { formatRelayTally, formatUsageEvent, parseRelayTally, parseUsageEvent } from '../../../src/wire/usage-event.ts'
import { parseSessionTicket, signedTextOf } from '../../../src/wire/workers/maildrop-worker.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { cut, mutated } from './mutation.ts'

const EVENTS = [
  'login v=1 id=7f3a.12 ip=192.0.2.7 daemon=popup tls=1 method=pass user=ann%40example.org',
  'login v=1 id=1.1 ip=2001:db8::7 daemon=cyrus/pop3 tls=0 method=sasl user=%C3%A4',
]
const ANSWERS = ['ok id=7f3a.12 committed until=1764000000', 'ok id=7f3a.12 queued', 'refused id=- reason=loopback']
const OTHERS = [
  'usage v=1 ip=192.0.2.7 at=1764000000 service=gate',
  `session v=1 id=7f3a.12 ip=192.0.2.7 tls=1 method=pass expires=1764000000 user=ann maildir=/home/ann mac=${'0a'.repeat(32)}`,
]
const ALL = [...EVENTS, ...ANSWERS, ...OTHERS]
const WORDS = ALL.flatMap(line => line.split(' '))

/**
 * Events, answers, tickets and reports, each a line between two processes. A line has one meaning
 * or none.
 */
export const loginEvents: FuzzTarget = {
  name: 'login-events',
  attempt(random) {
    const line = mutated(random, random.pick(ALL), WORDS)
    const event = parseLoginEvent(line)
    if (!('reason' in event)) {
      const again = parseLoginEvent(formatLoginEvent(event))
      promise(JSON.stringify(again) === JSON.stringify(event), 'another event when written again', line)
      promise(parseIpAddress(event.ip) === event.ip && line.includes(` user=`), 'an event out of nothing', line)
      promise([...event.user].length <= 255 && !event.user.includes('\0'), 'a name that no table takes', line)
    }
    const answer = parseLoginAnswer(line)
    if (answer !== undefined && answer.verdict !== 'committed')
      promise(formatLoginAnswer(answer) === line, 'an answer with two forms', line)
    if (answer?.verdict === 'committed')
      promise(/^ok id=\S+ committed until=\d+$/.test(line), 'committed out of nothing', line)
    const presented = parseSessionTicket(line)
    if (presented !== undefined)
      promise(`${signedTextOf(presented.ticket)} mac=${presented.mac}` === line, 'a ticket with two forms', line)
    const use = parseUsageEvent(line)
    if (use !== undefined) promise(parseUsageEvent(formatUsageEvent(use)) !== undefined, 'another report', line)
    const tally = parseRelayTally(line)
    if (tally !== undefined) promise(parseRelayTally(formatRelayTally(tally)) !== undefined, 'another tally', line)
    parseKeyValues(line)

    const stream = Buffer.from(`${line}\n${random.pick(ALL)}\n${line}`, 'latin1')
    const limit = random.pick([MAX_LOGIN_EVENT_LINE, 1 + random.int(120)])
    const splitter = new LineSplitter(limit)
    const received = cut(random, stream).flatMap(piece => splitter.push(piece).lines)
    promise(splitter.pending <= limit, 'holds more than a line', line)
    const lines = stream
      .toString('latin1')
      .split('\n')
      .slice(0, -1)
      .filter(text => text.length <= limit)
    promise(
      JSON.stringify(received) === JSON.stringify(lines.map(text => Buffer.from(text, 'latin1').toString('utf8'))),
      `other lines (limit ${limit})`,
      line,
    )
  },
}
