import { once } from 'node:events'
import { appendFileSync, readFileSync, utimesSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { MaildropService } from '../../../src/pop3d/serve-maildrop.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { makeMaildir, type PlannedFile } from '../../harness/pop3/maildir.ts'
import { Pop3Client } from '../../harness/pop3/pop3-client.ts'
import { socketPair, WorkerForTests } from '../../harness/pop3/pop3d.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

let worker: WorkerForTests | undefined
afterEach(async () => {
  await worker?.stop()
  worker = undefined
})

const MEGABYTE = 1_048_576

/** Memory that the process has in use, in octets. */
function residentOf({ worker: { child } }: WorkerForTests): number {
  const pages = Number(readFileSync(`/proc/${child.pid}/statm`, 'latin1').split(' ')[1])
  return pages * 4096
}

/**
 * Reads a multi-line response without keeping it. Returns its octets and the largest memory
 * meanwhile.
 */
async function drain(socket: Duplex, of: WorkerForTests): Promise<{ octets: number; peak: number }> {
  let octets = 0
  let peak = 0
  let tail = ''
  for await (const chunk of socket) {
    if (!(chunk instanceof Buffer)) throw new TypeError('octets')
    octets += chunk.length
    tail = (tail + chunk.subarray(-5).toString('latin1')).slice(-5)
    if (octets % (4 * MEGABYTE) < chunk.length) peak = Math.max(peak, residentOf(of))
    if (tail === '\r\n.\r\n') break
  }
  return { octets, peak }
}

function bigMaildir(megabytes: number): string {
  const maildir = makeMaildir(root.path, [{ path: 'cur/big', content: 'Subject: big\n\n', mtime: 1000 }])
  const block = Buffer.from(`${'x'.repeat(63)}\n`.repeat(MEGABYTE / 64))
  for (let count = 0; count < megabytes; count += 1) appendFileSync(`${maildir}/cur/big`, block)
  // Files of the current second are not listed.
  utimesSync(`${maildir}/cur/big`, 1000, 1000)
  return maildir
}

describe('a message of 100 MB', () => {
  test('is sent and measured with constant memory', async () => {
    const started = await WorkerForTests.start(root.path)
    worker = started
    const maildir = bigMaildir(100)
    // The first session comes before the measurement, because it allocates memory of the runtime.
    const first = new Pop3Client(started.open(started.ticket({ maildir })))
    await first.line()
    await first.say('STAT')
    const lines = 2 + 100 * (MEGABYTE / 64)
    const size = 14 + 100 * MEGABYTE + lines
    expect(await first.say('STAT')).toBe(`+OK 1 ${size}`)
    // The garbage collector may run late, so one of the transfers must be flat. A process that held
    // the message would grow by 100 MB at the first one.
    const growths: number[] = []
    while (growths.length < 4 && !growths.some(growth => growth < 30)) {
      const before = residentOf(started)
      const { octets, peak } = await drain(started.open(started.ticket({ maildir }), 'RETR 1\r\n'), started)
      // Two lines +OK and the termination.
      expect(octets).toBe(2 * '+OK \r\n'.length + size + '.\r\n'.length)
      growths.push((peak - before) / MEGABYTE)
    }
    expect(growths[0]).toBeLessThan(100)
    expect(Math.min(...growths)).toBeLessThan(30)
    first.end()
  })

  test('costs no memory for a client that does not read, and other sessions continue', async () => {
    const started = await WorkerForTests.start(root.path)
    worker = started
    const maildir = bigMaildir(40)
    const small = makeMaildir(root.path, [{ path: 'cur/small', content: 'x\n', mtime: 1000 }])
    const reader = new Pop3Client(started.open(started.ticket({ maildir: small })))
    await reader.line()
    const before = residentOf(started)
    const lazy = Array.from({ length: 20 }, () =>
      started.open(started.ticket({ maildir }), 'RETR 1\r\nRETR 1\r\n').pause(),
    )
    for (let round = 0; round < 50; round += 1) expect(await reader.say('STAT')).toBe('+OK 1 3')
    // Each transfer has an encoder with an input of 256 KB and two outputs that are slightly
    // longer.
    expect((residentOf(started) - before) / MEGABYTE).toBeLessThan(30)
    for (const socket of lazy) socket.destroy()
    expect(await reader.say('QUIT')).toBe('+OK ')
  })
})

describe('10,000 messages', () => {
  const files = Array.from({ length: 10_000 }, (_, index): PlannedFile => {
    const content = `Subject: ${index}\n\n${'line\n'.repeat(index % 50)}`
    return { path: `cur/${1_700_000_000 + index}.M${index}P1.host:2,S`, content, mtime: 1_700_000_000 + index }
  })

  let maildir: string
  beforeAll(() => {
    maildir = makeMaildir(root.path, files)
  }, 60_000)

  test('are listed, scanned and measured without a long wait of another session', async () => {
    const started = await WorkerForTests.start(root.path)
    worker = started
    const small = makeMaildir(root.path, [{ path: 'cur/small', content: 'x\n', mtime: 1000 }])
    const other = new Pop3Client(started.open(started.ticket({ maildir: small })))
    await other.line()
    for (let round = 0; round < 200; round += 1) await other.say('NOOP')

    let done = false

    const large = (async () => {
      const client = new Pop3Client(started.open(started.ticket({ maildir })))
      expect(await client.line()).toBe('+OK ')
      const octets = files.reduce((sum, { content }) => sum + content.length + content.split('\n').length - 1, 0)
      expect(await client.say('STAT')).toBe(`+OK 10000 ${octets}`)
      client.write('UIDL\r\n')
      const { lines } = await client.multiline()
      expect(lines).toHaveLength(10_000)
      expect(lines.at(-1)).toBe('10000 1700009999.M9999P1.host')
      client.write('LIST\r\n')
      expect((await client.multiline()).lines).toHaveLength(10_000)
      expect(await client.say('QUIT')).toBe('+OK ')
    })().finally(() => {
      done = true
    })
    const waits: number[] = []
    const began = performance.now()
    while (!done) {
      const from = performance.now()
      await other.say('NOOP')
      waits.push(performance.now() - from)
    }
    await large
    // Other tests slow both sessions down, so the limit is a share of the large session's time.
    const took = performance.now() - began
    waits.sort((a, b) => a - b)
    expect(waits.at(Math.floor(waits.length * 0.9))).toBeLessThan(took / 10)
  })

  test('block the event loop for less than a fifth of their processor time', async () => {
    const options = { compat: 'none', sizes: 'wire', extraBlank: false, lock: 'none', idleTime: 60_000 } as const
    const service = new MaildropService({ ...options, capabilities: [] })
    const log = createLog('test', { level: 'error' })
    const session = async (commands: string): Promise<number> => {
      const { client, server } = await socketPair()
      let octets = 0
      client.on('data', (chunk: Buffer) => {
        octets += chunk.length
      })
      const ended = once(client, 'end')
      client.end(commands)
      await service.serve(new StreamConnection(server, server), maildir, new Uint8Array(0), log)
      await ended
      return octets
    }
    let longest = 0
    let before = process.threadCpuUsage()
    let done = false
    // Processor time of this thread between two turns of the event loop, which other programs do
    // not change.
    const watch = (): void => {
      const { user, system } = process.threadCpuUsage(before)
      longest = Math.max(longest, (user + system) / 1000)
      before = process.threadCpuUsage()
      if (!done) setImmediate(watch)
    }
    setImmediate(watch)
    const deletions = files.map((_, index) => (index % 2 === 0 ? `DELE ${index + 1}\r\n` : '')).join('')
    const rounds: number[] = []
    for (let round = 0; round < 6; round += 1) {
      // The directory has changed, so that everything is scanned again.
      utimesSync(`${maildir}/cur`, 1_700_000_000 + round, 1_700_000_000 + round)
      longest = 0
      const start = process.threadCpuUsage()
      const octets = await session(`STAT\r\nUIDL\r\nLIST\r\n${deletions}UIDL\r\nLIST\r\nSTAT\r\n`)
      expect(octets).toBeGreaterThan(600_000)
      const { user, system } = process.threadCpuUsage(start)
      rounds.push(longest / ((user + system) / 1000))
    }
    done = true
    // The compiler in the first turn and the coarse times of the kernel only add time.
    expect(Math.min(...rounds)).toBeLessThan(1 / 5)
  })

  test('can all be deleted, pipelined', async () => {
    const started = await WorkerForTests.start(root.path)
    worker = started
    const commands = files.map((_, index) => `DELE ${index + 1}\r\n`).join('')
    const socket = started.open(started.ticket({ maildir }), `${commands}STAT\r\nQUIT\r\n`)
    const all = await new Pop3Client(socket).rest()
    expect(all).toBe(`${'+OK \r\n'.repeat(10_001)}+OK 0 0\r\n+OK \r\n`)
    const next = new Pop3Client(started.open(started.ticket({ maildir }), 'STAT\r\nQUIT\r\n'))
    expect(await next.rest()).toBe('+OK \r\n+OK 0 0\r\n+OK \r\n')
  })
})

test('500 idle sessions hold little memory', async () => {
  const started = await WorkerForTests.start(root.path)
  worker = started
  const maildir = makeMaildir(root.path, [{ path: 'cur/small', content: 'x\n', mtime: 1000 }])
  const open = async () => {
    const client = new Pop3Client(started.open(started.ticket({ maildir })))
    await client.line()
    await client.say('STAT')
    return client
  }
  for (let round = 0; round < 20; round += 1) await open().then(client => client.say('QUIT'))
  const before = residentOf(started)
  const clients = await Promise.all(Array.from({ length: 500 }, open))
  const each = (residentOf(started) - before) / clients.length
  expect(each).toBeLessThan(60_000)
  for (const client of clients) client.end()
})
