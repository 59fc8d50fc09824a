import { appendFileSync, mkdirSync, renameSync, rmdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { FilePlaces } from '../../../src/authd/file-places.ts'
import { FollowedFile } from '../../../src/authd/followed-file.ts'
import { createLog } from '../../../src/base/log.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

let directory = temporaryDirectory()
let path = ''
let events: string[] = []
let following: FollowedFile | undefined
const log = createLog('authd', { write: line => events.push(/event=(\S+)/.exec(line)?.[1] ?? '') })

beforeEach(() => {
  directory = temporaryDirectory()
  path = `${directory.path}/mail.log`
  events = []
})
afterEach(async () => {
  await following?.close()
  following = undefined
  directory.remove()
})

/**
 * Takes the lines of a file in place of the login sources. A line with `login` is a login for the
 * store.
 */
class RecordedSources {
  readonly lines: string[] = []
  readonly #open: (() => void)[] = []

  acceptFileLine(_: unknown, text: string, settled: () => void): boolean {
    this.lines.push(text)
    if (!text.includes('login')) return false
    this.#open.push(settled)
    return true
  }

  /** The store has stored every login. */
  settle(): void {
    for (const settled of this.#open.splice(0)) settled()
  }

  has(...lines: readonly string[]): Promise<unknown> {
    return eventually(`the lines ${lines.join(', ')}`, () => this.lines.join() === lines.join())
  }
}

function follow(places: FilePlaces): RecordedSources {
  const sources = new RecordedSources()
  following = new FollowedFile({ path, places, sources, counters: new Counters(), log })
  return sources
}
const newPlaces = (): FilePlaces => new FilePlaces(`${directory.path}/places.json`)
const isFollowed = () => eventually('the file is followed', () => events.includes('file_followed'))

test('a file that exists at the first start is read from its end, in whole lines', async () => {
  writeFileSync(path, 'old\n')
  const sources = follow(newPlaces())
  await isFollowed()
  appendFileSync(path, 'one\ntw')
  await sources.has('one')
  appendFileSync(path, 'o\n')
  await sources.has('one', 'two')
})

test('a file that appears later is read from its beginning, and its absence is logged once', async () => {
  const sources = follow(newPlaces())
  await eventually('a log line', () => events.includes('file_unreadable'))
  writeFileSync(path, 'one\n')
  await sources.has('one')
  expect(events).toEqual(['file_unreadable', 'file_followed'])
})

test('the place is saved only when the store has stored every login before it', async () => {
  writeFileSync(path, '')
  const places = newPlaces()
  const sources = follow(places)
  await isFollowed()
  appendFileSync(path, 'login a\nnothing\n')
  await sources.has('login a', 'nothing')
  appendFileSync(path, 'login b\n')
  expect(places.get(path)?.offset).toBe(0)
  expect(sources.lines).toHaveLength(2)
  sources.settle()
  await sources.has('login a', 'nothing', 'login b')
  expect(places.get(path)?.offset).toBe('login a\nnothing\n'.length)
  sources.settle()
  await eventually('the place is behind the last line', () => places.get(path)?.offset === statSync(path).size)
})

test('the rest of a rotated file is read before the new one', async () => {
  writeFileSync(path, '')
  const sources = follow(newPlaces())
  await isFollowed()
  appendFileSync(path, 'one\n')
  await sources.has('one')
  renameSync(path, `${path}.1`)
  writeFileSync(path, '')
  // The writer still has the old file open.
  appendFileSync(`${path}.1`, 'two\n')
  await sources.has('one', 'two')
  appendFileSync(path, 'three\n')
  await sources.has('one', 'two', 'three')
})

test('a file that was truncated is read from its beginning', async () => {
  writeFileSync(path, '')
  const sources = follow(newPlaces())
  await isFollowed()
  appendFileSync(path, 'a long first line\n')
  await sources.has('a long first line')
  truncateSync(path)
  await eventually('the truncation is logged', () => {
    appendFileSync(path, '')
    return events.includes('file_truncated')
  })
  appendFileSync(path, 'two\n')
  await sources.has('a long first line', 'two')
})

test('a restart continues at the saved place, also in a file that was rotated meanwhile', async () => {
  writeFileSync(path, '')
  const places = newPlaces()
  const first = follow(places)
  await isFollowed()
  appendFileSync(path, 'one\n')
  await first.has('one')
  await eventually('the offset is stored', () => places.get(path)?.offset === 4)
  await following?.close()
  places.save()

  appendFileSync(path, 'two\n')
  renameSync(path, `${path}.1`)
  writeFileSync(path, 'three\n')
  const second = follow(newPlaces())
  await second.has('two', 'three')
})

test('a file that takes the place of a directory is read, and the directory is logged once', async () => {
  mkdirSync(path)
  const sources = follow(newPlaces())
  await eventually('the fault is logged', () => events.includes('file_unreadable'))
  rmdirSync(path)
  writeFileSync(path, 'one\n')
  await sources.has('one')
  expect(events.filter(event => event === 'file_unreadable')).toHaveLength(1)
})
