import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { FilePlaces } from '../../../src/authd/file-places.ts'
import { Housekeeper } from '../../../src/authd/housekeeper.ts'
import { createLog } from '../../../src/base/log.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterEach(() => directory.remove())

test('places that cannot be saved are one line of the log until they can be again', () => {
  const lines: string[] = []
  const log = createLog('authd', { write: line => lines.push(line) })
  const path = `${directory.path}/authd/places.json`
  const places = new FilePlaces(path)
  const store = { sweep: async () => ({ grants: 0 }), keepHistory: async () => {}, publishUngrantable: async () => {} }
  const housekeeper = new Housekeeper({
    ...{ store, places, counters: new Counters(), log },
    ...{ sweepEvery: 3_600_000, keepDays: 1 },
  })
  // A file stands where the directory should be: the same fault for whoever runs this, root too.
  writeFileSync(`${directory.path}/authd`, '')
  places.set('/var/log/mail.log', { inode: 1, offset: 10 })
  housekeeper.savePlaces()
  housekeeper.savePlaces()
  expect(lines).toEqual([expect.stringContaining('event=places-not-saved')])
  rmSync(`${directory.path}/authd`)
  housekeeper.savePlaces()
  expect(new FilePlaces(path).get('/var/log/mail.log')).toEqual({ inode: 1, offset: 10 })
  rmSync(`${directory.path}/authd`, { recursive: true })
  mkdirSync(path, { recursive: true })
  places.set('/var/log/mail.log', { inode: 1, offset: 20 })
  housekeeper.savePlaces()
  expect(lines).toHaveLength(2)
  housekeeper.close()
})
