import { parseJournalEntry } from '../../../src/authd/journal.ts'
import { ContainerLines, isOfContainer } from '../../../src/syslog/container-lines.ts'
import { MAX_SYSLOG_LINE } from '../../../src/syslog/syslog-line.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'
import type { Random } from './random.ts'

const LOGIN = 'pop3-login: Login: user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=7, session=<a>'
const ENTRY = JSON.stringify({
  __CURSOR: 's=1;i=2',
  __REALTIME_TIMESTAMP: '1764000000123456',
  _SOURCE_REALTIME_TIMESTAMP: '1764000000123400',
  _UID: '0',
  _SYSTEMD_UNIT: 'dovecot.service',
  _HOSTNAME: 'mx',
  SYSLOG_IDENTIFIER: 'dovecot',
  SYSLOG_PID: '77',
  MESSAGE: LOGIN,
})
const ENTRY_WORDS = [
  ENTRY,
  '"_UID":"0"',
  '"_UID":["0","0"]',
  '"MESSAGE":[114,111]',
  '"__CURSOR":""',
  '"__REALTIME_TIMESTAMP":"8640000000000001000"',
  '"__REALTIME_TIMESTAMP":"1e400"',
  '"_SOURCE_REALTIME_TIMESTAMP":"-1"',
  'null',
  '{}',
]

function journalEntry(random: Random): void {
  const text = mutated(random, ENTRY, ENTRY_WORDS)
  const entry = parseJournalEntry(text)
  if (entry === undefined) return
  const { cursor, uid, line } = entry
  promise(cursor !== '', 'an entry without a place', text)
  promise(uid === undefined || (Number.isSafeInteger(uid) && uid >= 0), 'an account that is none', text)
  promise(!Number.isNaN(Date.parse(line.stamp)), 'a stamp that is no time', text)
}

const STAMP = '2026-01-05T00:00:00.123456789Z'
const PIECES = [
  JSON.stringify({ log: `${LOGIN}\n`, stream: 'stdout', time: STAMP }),
  JSON.stringify({ log: 'dovecot: ', stream: 'stdout', time: STAMP }),
  JSON.stringify({ log: 'x\r\n', stream: 'stderr', time: STAMP }),
  `${STAMP} stdout F ${LOGIN}`,
  `${STAMP} stdout P dovecot: `,
  `${STAMP} stderr F:tag x`,
]

function containerLines(random: Random): void {
  const beginning = random.pick(['first', 'anywhere'] as const)
  const lines = new ContainerLines(beginning)
  const given: string[] = []
  for (let left = 1 + random.int(6); left > 0; left -= 1) {
    if (random.oneIn(6)) lines.lose()
    const text = random.oneIn(3) ? random.pick(PIECES) : mutated(random, random.pick(PIECES), PIECES)
    given.push(text)
    const line = lines.unwrap(text)
    promise((line === undefined) === !isOfContainer(text), 'a line of another format', given)
    if (line === undefined || line === 'piece') continue
    promise(Buffer.byteLength(line.text) <= MAX_SYSLOG_LINE, 'a line that is too long', given)
    promise(/^\d{4}-\d\d-\d\dT/.test(line.stamp), 'a stamp of another form', given)
  }
}

/** Entries of the journal, and lines in the log files of container runtimes. */
export const logSources: FuzzTarget = {
  name: 'log-sources',
  attempt: random => random.pick([journalEntry, containerLines])(random),
}
