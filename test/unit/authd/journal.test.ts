import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { FilePlaces } from '../../../src/authd/file-places.ts'
import { Journal, parseJournalEntry } from '../../../src/authd/journal.ts'
import type { JournalEntry } from '../../../src/authd/login-sources.ts'
import { createLog } from '../../../src/base/log.ts'
import { isStoppedProcess } from '../../../src/base/supervised-child.ts'
import { eventually } from '../../harness/eventually.ts'
import { withFreeDescriptors } from '../../harness/hosts/scarce-descriptors.ts'
import { descendantsOf } from '../../harness/processes/process-status.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

let journal: Journal | undefined
afterEach(() => {
  vi.useRealTimers()
  journal?.close()
})

test('journalctl that cannot be started for want of descriptors is started again later', async () => {
  const lines: string[] = []
  const options = {
    command: ['true'],
    places: new FilePlaces('/nonexistent/places.json'),
    sources: { acceptJournalEntry: () => false },
    counters: new Counters(),
    log: createLog('authd', { write: line => lines.push(line) }),
  }
  journal = withFreeDescriptors(0, () => new Journal(options))
  await eventually('the end is logged', () => lines.some(line => /event=journal_ended .*EMFILE/.test(line)))
  await eventually('the next run', () => lines.some(line => /event=journal_ended .*\(0\)/.test(line)))
  expect(lines).toHaveLength(2)
})

test('journalctl that ends at once is started again with the back-off of every child', async () => {
  const lines: string[] = []
  journal = new Journal({
    command: ['false'],
    places: new FilePlaces('/nonexistent/places.json'),
    sources: { acceptJournalEntry: () => false },
    counters: new Counters(),
    log: createLog('authd', { write: line => lines.push(line) }),
  })
  await eventually('four runs', () => lines.length === 4)
  expect(lines.map(line => /in_ms=(\d+)/.exec(line)?.[1])).toEqual(['100', '200', '400', '800'])
})

test('journalctl that a signal has stopped is killed within 15 s and started again', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  const lines: string[] = []
  journal = new Journal({
    command: ['/bin/sh', '-c', 'exec sleep 4711', 'journalctl'],
    places: new FilePlaces('/nonexistent/places.json'),
    sources: { acceptJournalEntry: () => false },
    counters: new Counters(),
    log: createLog('authd', { write: line => lines.push(line) }),
  })
  const pidOf = (): number | undefined =>
    descendantsOf(process.pid).find(({ commandLine }) => commandLine.join(' ') === 'sleep 4711')?.pid
  const first = await eventually('journalctl runs', pidOf)
  vi.advanceTimersByTime(60_000)
  expect(pidOf()).toBe(first)
  process.kill(first, 'SIGSTOP')
  await eventually('it is stopped', () => isStoppedProcess(first))
  vi.advanceTimersByTime(15_000)
  await eventually('its end is logged', () => lines.some(line => /journal_ended .*signal had stopped it/.test(line)))
  await eventually('another one runs', () => (pidOf() ?? first) !== first)
})

const AT = Date.parse('2026-03-05T10:00:00.123Z')
const FIELDS = {
  __CURSOR: 's=1;i=1',
  __REALTIME_TIMESTAMP: String(AT * 1000 + 456),
  _HOSTNAME: 'mx',
  _UID: '0',
  _SYSTEMD_UNIT: 'dovecot.service',
  SYSLOG_IDENTIFIER: 'ipop3d',
  SYSLOG_PID: '78',
  _PID: '77',
  MESSAGE: 'Login user=ann host=[192.0.2.7] nmsgs=1/1',
}
const text = (fields: Readonly<Record<string, unknown>> = {}): string => JSON.stringify({ ...FIELDS, ...fields })
const entry = (fields: Readonly<Record<string, unknown>> = {}) => parseJournalEntry(text(fields))

describe('an entry', () => {
  test('has the fields of its sender, and those of journald', () => {
    expect(entry()).toEqual({
      line: {
        form: 'journal',
        stamp: '2026-03-05T10:00:00.123Z',
        host: 'mx',
        tag: 'ipop3d',
        pid: '78',
        message: FIELDS.MESSAGE,
      },
      uid: 0,
      unit: 'dovecot.service',
      cursor: 's=1;i=1',
    })
    expect(entry({ SYSLOG_PID: undefined })?.line.pid).toBe('77')
  })

  test('has the time of its sender, unless that is later than the time of journald', () => {
    const sent = (milliseconds: number) => entry({ _SOURCE_REALTIME_TIMESTAMP: String(milliseconds * 1000) })
    expect(sent(AT - 1000)?.line.stamp).toBe('2026-03-05T09:59:59.123Z')
    expect(sent(AT + 60_000)?.line.stamp).toBe('2026-03-05T10:00:00.123Z')
    expect(sent(-1)?.line.stamp).toBe('2026-03-05T10:00:00.123Z')
  })

  test.each([
    { _UID: undefined },
    { _UID: '' },
    { _UID: '-1' },
    { _UID: '1e3' },
    { _UID: ' 0' },
    { _UID: 0 },
    { _UID: ['0', '0'] },
    { UID: '0', _UID: 'root' },
  ])('with $_UID as its account is of no account', fields => {
    expect(entry(fields)?.uid).toBeUndefined()
  })

  test.each([
    { _SYSTEMD_UNIT: undefined },
    { _SYSTEMD_UNIT: ['a.service', 'b.service'] },
    { UNIT: 'a.service', _SYSTEMD_UNIT: 7 },
  ])('with $_SYSTEMD_UNIT as its unit is of no unit', fields => {
    expect(entry(fields)?.unit).toBe('')
  })

  // journalctl prints a message that is not UTF-8, or that is too long, as numbers or as null.
  test.each([[76, 111, 103], null, ['a', 'b'], 7])('with the message %j has no text', message => {
    expect(entry({ MESSAGE: message })?.line.message).toBe('')
  })

  test.each([
    '',
    '{',
    text().slice(0, -1),
    text().slice(1),
    `${text()}}`,
    'null',
    '7',
    '"text"',
    '[]',
    '-- No entries --',
    text({ __CURSOR: undefined }),
    text({ __CURSOR: '' }),
    text({ __REALTIME_TIMESTAMP: undefined }),
    text({ __REALTIME_TIMESTAMP: 'now' }),
    text({ __REALTIME_TIMESTAMP: '0' }),
    text({ __REALTIME_TIMESTAMP: '8640000000000001000' }),
    text({ __REALTIME_TIMESTAMP: '1e400' }),
  ])('is not read from %j', line => {
    expect(parseJournalEntry(line)).toBeUndefined()
  })
})

describe('the child journalctl', () => {
  const directory = temporaryDirectory()
  afterAll(() => directory.remove())

  /** A journalctl that prints a file for each start, with its arguments, and then waits or ends. */
  function start(runs: readonly string[], takes: (entry: JournalEntry, settled: () => void) => boolean = () => false) {
    const calls = `${directory.path}/calls`
    writeFileSync(calls, '')
    for (const [index, output] of runs.entries()) writeFileSync(`${directory.path}/${index}`, output)
    const script = [
      `echo "$@" >> ${calls}`,
      `n=$(($(wc -l < ${calls}) - 1))`,
      `cat ${directory.path}/$n`,
      `[ $n -lt ${runs.length - 1} ] || exec sleep 60`,
    ].join('\n')
    const entries: JournalEntry[] = []
    const lines: string[] = []
    const counters = new Counters()
    const places = new FilePlaces('/nonexistent/places.json')
    journal = new Journal({
      command: ['sh', '-c', script, 'journalctl'],
      places,
      sources: {
        acceptJournalEntry: (one, settled) => {
          entries.push(one)
          return takes(one, settled)
        },
      },
      counters,
      log: createLog('authd', { write: line => lines.push(line) }),
    })
    return { entries, lines, counters, places, calls }
  }
  const cursors = (entries: readonly JournalEntry[]) => entries.map(({ cursor }) => cursor)

  test('is read line by line; lines without an entry are skipped, and too long ones are counted', async () => {
    const long = text({ __CURSOR: 'long', MESSAGE: 'x'.repeat(70_000) })
    const output = [
      text({ __CURSOR: 'a' }),
      'no entry',
      long,
      text({ __CURSOR: 'b', MESSAGE: [76] }),
      text({ __CURSOR: 'c' }),
    ]
    const { entries, counters, places } = start([`${output.join('\n')}\n${text({ __CURSOR: 'unfinished' })}`])
    await eventually('the last entry', () => entries.length === 3)
    expect(cursors(entries)).toEqual(['a', 'b', 'c'])
    expect(counters.overlong.journal).toBe(1)
    expect(places.cursor).toBe('c')
  })

  test('is started again from the first entry that is not stored', async () => {
    const settled = new Map<string, () => void>()
    const { entries, lines, places, calls } = start(
      [`${['a', 'b', 'c'].map(cursor => text({ __CURSOR: cursor })).join('\n')}\n`, `${text({ __CURSOR: 'b' })}\n`],
      ({ cursor }, done) => {
        settled.set(cursor, done)
        return true
      },
    )
    await eventually('three entries', () => entries.length === 3)
    expect(places.cursor).toBeUndefined()
    settled.get('c')?.()
    expect(places.cursor).toBeUndefined()
    settled.get('a')?.()
    expect(places.cursor).toBe('a')
    await eventually('the next run', () => entries.length === 4)
    expect(cursors(entries)).toEqual(['a', 'b', 'c', 'b'])
    expect(lines.join('\n')).toMatch(/event=journal_ended .*\(0\)/)
    expect(readFileSync(calls, 'utf8').split('\n')).toEqual([
      '--follow --output=json --quiet --lines=0',
      '--follow --output=json --quiet --after-cursor=a',
      '',
    ])
  })
})
