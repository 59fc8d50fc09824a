import { afterEach, expect, test } from 'vitest'
import { FilePlaces } from '../../../src/authd/file-places.ts'
import { Journal } from '../../../src/authd/journal.ts'
import { Counters } from '../../../src/authd/metrics.ts'
import { createLog } from '../../../src/base/log.ts'
import { eventually } from '../../harness/eventually.ts'
import { withFreeDescriptors } from '../../harness/scarce-descriptors.ts'

let journal: Journal | undefined
afterEach(() => journal?.close())

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
