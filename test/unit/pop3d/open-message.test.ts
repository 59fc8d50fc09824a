import { readdirSync, writeFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { afterAll, afterEach, expect, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { createLog } from '../../../src/base/log.ts'
import { EncoderPool } from '../../../src/pop3d/encoding/line-encoder.ts'
import { openMessage } from '../../../src/pop3d/maildir/folders.ts'
import { MaildropCache } from '../../../src/pop3d/maildir/maildrop-cache.ts'
import { Session } from '../../../src/pop3d/session.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { makeMaildir, parseFile } from '../../harness/pop3/maildir.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const stale = vi.hoisted(() => ({ isStale: false }))
vi.mock('node:fs', async importOriginal => {
  const fs = await importOriginal<typeof import('node:fs')>()
  const fstatSync = (fd: number) => {
    if (stale.isStale) throw new Error('ESTALE: stale file handle')
    return fs.fstatSync(fd)
  }
  return { ...fs, fstatSync }
})

const root = temporaryDirectory()
afterAll(() => root.remove())
afterEach(() => {
  stale.isStale = false
})
const descriptors = () => readdirSync('/proc/self/fd').length

test('a message whose status cannot be read is unreadable, and its descriptor is closed', () => {
  const path = `${root.path}/message`
  writeFileSync(path, 'x\n')
  const before = descriptors()
  stale.isStale = true
  expect(openMessage(path)).toMatchObject({ kind: 'unreadable', cause: { message: 'ESTALE: stale file handle' } })
  expect(descriptors()).toBe(before)
})

for (const [kind, size] of [
  ['small', 10],
  ['long', 100_000],
] as const) {
  test(`if there is no memory for a ${kind} message, only its session ends, and its descriptor is closed`, async () => {
    const path = makeMaildir(root.path, [parseFile('cur/A "x\\n"')])
    writeFileSync(`${path}/cur/A`, 'x'.repeat(size))
    const rules = { compat: 'none', sizes: 'file' } as const
    const cache = new MaildropCache(rules, new EncoderPool(4096), () => systemClock() + 60_000)
    const maildrop = await cache.open(path)
    const before = descriptors()
    const [input, output] = [new PassThrough(), new PassThrough()]
    const session = new Session(new StreamConnection(input, output.resume()), maildrop, {
      cache,
      encoders: new EncoderPool(4096, () => {
        throw new Error('no memory')
      }),
      rules: { compat: 'none', capabilities: [], idleTime: 60_000, keepCr: false, extraBlank: false },
      log: createLog('pop3d', { write: () => {} }),
      unlock: () => {},
    })
    session.start(Buffer.from('RETR 1\r\n'))
    expect((await session.ended).reason).toBe('failed')
    expect(descriptors()).toBe(before)
  })
}
