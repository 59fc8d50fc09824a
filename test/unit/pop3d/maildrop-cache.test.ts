import { afterAll, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { EncoderPool, scriptBlock } from '../../../src/pop3d/encoding/line-encoder.ts'
import { MaildropCache } from '../../../src/pop3d/maildir/maildrop-cache.ts'
import { makeMaildir, parseFile } from '../../harness/pop3/maildir.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const MINUTE_MS = 60_000
const threeMessages = () => makeMaildir(root.path, ['cur/A "x\\n"', 'cur/B "y\\n"', 'cur/C "z\\n"'].map(parseFile))

test('the scans that were used last are kept while their messages together do not exceed the limit', async () => {
  // A directory that changed just now is scanned again, so the clock is ahead.
  const clock = () => systemClock() + MINUTE_MS
  const cache = new MaildropCache({ sizes: 'wire', compat: 'none' }, new EncoderPool(4096), clock, 7)
  const [first, second, third] = [threeMessages(), threeMessages(), threeMessages()]
  await cache.open(first)
  await cache.open(second)
  expect(cache.cached(first)?.count).toBe(3)
  await cache.open(third)
  expect([first, second, third].map(path => cache.cached(path)?.count)).toEqual([3, undefined, 3])
})

test('after a scan that failed for want of memory, the next one finds the sizes', async () => {
  let isFull = true
  const encoders = new EncoderPool(4096, maxInput => {
    if (isFull) throw new Error('no memory')
    return scriptBlock(maxInput)
  })
  const cache = new MaildropCache({ sizes: 'wire', compat: 'none' }, encoders, systemClock)
  const maildrop = await cache.open(threeMessages())
  await expect(cache.determineSizes(maildrop)).rejects.toThrow('no memory')
  isFull = false
  await cache.determineSizes(maildrop)
  expect([1, 2, 3].map(number => maildrop.octets(number))).toEqual([3, 3, 3])
  expect(maildrop.sizesKnown).toBe(true)
})
