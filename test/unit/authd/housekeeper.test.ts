import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { FilePlaces, LastLinesFile } from '../../../src/authd/file-places.ts'
import { Housekeeper } from '../../../src/authd/housekeeper.ts'
import { createLog } from '../../../src/base/log.ts'
import { parseLastLines } from '../../../src/wire/last-lines.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterEach(() => directory.remove())

test('places that cannot be saved cause one log line until they can be saved again', () => {
  const lines: string[] = []
  const log = createLog('authd', { write: line => lines.push(line) })
  const path = `${directory.path}/authd/places.json`
  const places = new FilePlaces(path)
  const store = { sweep: async () => ({ grants: 0 }), keepHistory: async () => {}, publishUngrantable: async () => {} }
  const housekeeper = new Housekeeper({
    ...{ store, places, lastLines: new LastLinesFile(`${directory.path}/last-lines.json`, new Map()) },
    ...{ counters: new Counters(), log },
    ...{ sweepEvery: 3_600_000, keepDays: 1 },
  })
  // A file has the name of the directory, which is the same fault for every account, including
  // root.
  writeFileSync(`${directory.path}/authd`, '')
  places.set('/var/log/mail.log', { inode: 1, offset: 10 })
  housekeeper.savePlaces()
  housekeeper.savePlaces()
  expect(lines).toEqual([expect.stringContaining('event=state_save_failed')])
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

test('the newest line of each source survives a restart, shortened, in a file of mode 0600', () => {
  const path = `${directory.path}/state/authd/last-lines.json`
  const counters = new Counters()
  const file = new LastLinesFile(path, counters.lastLines)
  counters.keepLastLine(1000, 'first', 'tcp')
  counters.keepLastLine(2000, 'x'.repeat(5000), 'tcp')
  counters.keepLastLine(3000, 'of a file', 'file', '/var/log/mail.log')
  file.save()
  expect(statSync(path).mode & 0o777).toBe(0o600)
  const next = new Counters()
  const nextFile = new LastLinesFile(path, next.lastLines)
  expect([...next.lastLines]).toEqual([
    ['tcp', { at: 2000, text: 'x'.repeat(300) }],
    ['file:/var/log/mail.log', { at: 3000, text: 'of a file' }],
  ])
  next.keepLastLine(4000, 'newer', 'tcp')
  nextFile.save()
  expect(parseLastLines(readFileSync(path, 'utf8')).get('tcp')).toEqual({ at: 4000, text: 'newer' })
  for (const spoiled of ['', 'null', '{"tcp":1,"fifo":{"at":"x","text":""},"journal":{"at":1}}']) {
    writeFileSync(path, spoiled)
    const lines = new Counters().lastLines
    new LastLinesFile(path, lines)
    expect(lines.size).toBe(0)
  }
})
