import { chmodSync, lutimesSync, renameSync, rmSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { EncoderPool } from '../../../src/pop3d/encoding/line-encoder.ts'
import { MaildropCache, MaildropMissing, MaildropUnreadable } from '../../../src/pop3d/maildir/maildrop-cache.ts'
import { makeMaildir, parseFile } from '../../harness/pop3/maildir.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const encoders = new EncoderPool(65_536)
const maildirOf = (...files: readonly string[]) => makeMaildir(root.path, files.map(parseFile))

/**
 * The time of the cache: well after everything that was just written, unless a test sets another.
 */
let now = 0
beforeEach(() => {
  now = Date.now() + 60_000
})
const cacheWith = (sizes: 'wire' | 'file' = 'wire') => new MaildropCache({ sizes, compat: 'none' }, encoders, () => now)

describe('the maildrop cache', () => {
  test('scans once while nothing changes', async () => {
    const maildir = maildirOf('new/A "x\\n"', 'cur/B:2,S "y\\n"')
    const cache = cacheWith()
    const first = await cache.open(maildir)
    expect(first.count).toBe(2)
    expect(await cache.open(maildir)).toBe(first)
    expect(first.readyListing('UIDL')).toBe(first.readyListing('UIDL'))
  })

  test.each([
    ['a delivery', (maildir: string) => writeFileSync(`${maildir}/new/C`, 'z\n')],
    ['a removal', (maildir: string) => unlinkSync(`${maildir}/cur/B:2,S`)],
    ['a change of flags', (maildir: string) => renameSync(`${maildir}/cur/B:2,S`, `${maildir}/cur/B:2,RS`)],
    ['a change of rights', (maildir: string) => chmodSync(`${maildir}/cur`, 0o750)],
  ])('scans again after %s', async (_, change) => {
    const maildir = maildirOf('new/A "x\\n"', 'cur/B:2,S "y\\n"')
    const cache = cacheWith()
    const first = await cache.open(maildir)
    change(maildir)
    now += 60_000
    expect(await cache.open(maildir)).not.toBe(first)
  })

  test('rescans a directory that changed less than two seconds ago', async () => {
    const maildir = maildirOf('cur/A "x\\n"')
    const cache = cacheWith()
    now = Date.now()
    const first = await cache.open(maildir)
    expect(await cache.open(maildir)).not.toBe(first)
    now = Date.now() + 10_000
    const quiet = await cache.open(maildir)
    expect(await cache.open(maildir)).toBe(quiet)
  })

  test('lists a file of the current second at the next login, without a change of the directory', async () => {
    const maildir = maildirOf('cur/A "x\\n"', 'cur/B "y\\n"')
    const second = Math.floor(now / 1000)
    utimesSync(`${maildir}/cur/B`, second, second)
    const cache = cacheWith()
    expect((await cache.open(maildir)).count).toBe(1)
    now += 1000
    expect((await cache.open(maildir)).count).toBe(2)
  })

  test('follows no symbolic link', async () => {
    const maildir = maildirOf('cur/A "x\\n"')
    symlinkSync('/etc/passwd', `${maildir}/cur/link`)
    lutimesSync(`${maildir}/cur/link`, 1000, 1000)
    expect((await cacheWith().open(maildir)).count).toBe(1)
  })

  test('measures a file once, also if it moves from new/ to cur/', async () => {
    const maildir = maildirOf('new/A mtime=10 "x\\n"', 'cur/B mtime=20 "y\\ny\\n"')
    const cache = cacheWith()
    const first = await cache.open(maildir)
    expect(first.sizesKnown).toBe(false)
    await cache.determineSizes(first)
    expect(first.readyListing('LIST').toString()).toBe('+OK \r\n1 3\r\n2 6\r\n.\r\n')
    renameSync(`${maildir}/new/A`, `${maildir}/cur/A:2,`)
    // Same length and time, other line ends, so that only a second read shows the difference.
    writeFileSync(`${maildir}/cur/A:2,`, 'xx')
    utimesSync(`${maildir}/cur/A:2,`, 10, 10)
    now += 60_000
    const second = await cache.open(maildir)
    expect(second).not.toBe(first)
    await cache.determineSizes(second)
    expect([second.octets(1), second.octets(2), second.totalOctets()]).toEqual([3, 6, 9])
    // A file of another length is read again.
    rmSync(`${maildir}/cur/A:2,`)
    writeFileSync(`${maildir}/cur/A:2,`, 'x\nx\n')
    utimesSync(`${maildir}/cur/A:2,`, 10, 10)
    now += 60_000
    const third = await cache.open(maildir)
    await cache.determineSizes(third)
    expect(third.octets(1)).toBe(6)
  })

  test('sessions that begin at the same time share one scan', async () => {
    const maildir = maildirOf('cur/A "x\\n"')
    const cache = cacheWith()
    const [one, two] = await Promise.all([cache.open(maildir), cache.open(maildir)])
    expect(one).toBe(two)
  })

  test('reports the fault', async () => {
    const cache = cacheWith()
    await expect(cache.open(`${root.path}/none`)).rejects.toBeInstanceOf(MaildropMissing)
    await expect(cache.open('/etc/passwd')).rejects.toBeInstanceOf(MaildropMissing)
    await expect(cache.open(maildirOf('-cur'))).rejects.toBeInstanceOf(MaildropUnreadable)
  })
})
