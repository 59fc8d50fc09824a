import { afterEach, expect, test, vi } from 'vitest'
import { FilePlaces } from '../../../src/authd/file-places.ts'
import { Journal } from '../../../src/authd/journal.ts'
import { Counters } from '../../../src/authd/metrics.ts'
import { createLog } from '../../../src/base/log.ts'
import { isStoppedProcess } from '../../../src/base/supervised-child.ts'
import { eventually } from '../../harness/eventually.ts'
import { descendantsOf } from '../../harness/process-status.ts'
import { withFreeDescriptors } from '../../harness/scarce-descriptors.ts'

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
