import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { PassThrough, Writable } from 'node:stream'
import { afterAll, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { lockMaildrop, MaildropInUse } from '../../../src/pop3d/maildir/maildrop-lock.ts'
import { MaildropService, type MaildropServiceOptions } from '../../../src/pop3d/serve-maildrop.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { makeMaildir, parseFile, stateOf } from '../../harness/pop3/maildir.ts'
import { Pop3Client } from '../../harness/pop3/pop3-client.ts'
import { socketPair } from '../../harness/pop3/pop3d.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const OPTIONS: MaildropServiceOptions = {
  compat: 'none',
  sizes: 'wire',
  extraBlank: false,
  lock: 'none',
  idleTime: 1_200_000,
  capabilities: [],
}

/** A session over a TCP connection, with its log and its end. */
async function serve(options: Partial<MaildropServiceOptions>, maildir: string) {
  const { client, server } = await socketPair()
  const lines: string[] = []
  const log = createLog('pop3d', { write: line => lines.push(line) })
  const service = new MaildropService({ ...OPTIONS, ...options })
  const ended = service.serve(new StreamConnection(server, server), maildir, new Uint8Array(0), log)
  return { client, lines, ended }
}

function isLocked(maildir: string): boolean {
  try {
    lockMaildrop(maildir)()
    return false
  } catch (error) {
    if (error instanceof MaildropInUse) return true
    throw error
  }
}

const maildirOf = (...files: readonly string[]) => makeMaildir(root.path, files.map(parseFile))

test('an idle session is closed without a reply, and no message is removed', async () => {
  const maildir = maildirOf('new/A "x\\n"')
  const { client, lines, ended } = await serve({ idleTime: 100 }, maildir)
  const pop3 = new Pop3Client(client)
  await pop3.line()
  expect(await pop3.say('DELE 1')).toBe('+OK ')
  expect(await pop3.rest()).toBe('')
  await ended
  expect(lines).toEqual(['pop3d: level=info event=session_ended reason=idle retrieved=0 deleted=0\n'])
  expect(stateOf(maildir)).toEqual(['new/A "x\\n"'])
})

test('a client that stops reading in the middle of a message counts as idle', async () => {
  const maildir = maildirOf(`cur/A ${JSON.stringify('x'.repeat(20_000_000))}`)
  const { client, lines, ended } = await serve({ idleTime: 200 }, maildir)
  client.pause()
  client.write('RETR 1\r\n')
  await ended
  expect(lines.join('')).toContain('reason=idle')
  client.destroy()
})

test('the lock ends before the client gets the reply to QUIT, so that the client can log in again at once', async () => {
  const maildir = maildirOf('cur/A "x\\n"')
  const replies: string[] = []
  const input = new PassThrough()
  const output = new Writable({
    write(chunk, _encoding, done) {
      replies.push(`${chunk} ${isLocked(maildir) ? 'locked' : 'free'}`)
      if (replies.length === 1) input.end('QUIT\r\n')
      done()
    },
  })
  const service = new MaildropService({ ...OPTIONS, lock: 'exclusive' })
  const log = createLog('pop3d', { write: () => {} })
  await service.serve(new StreamConnection(input, output), maildir, new Uint8Array(0), log)
  expect(replies).toEqual(['+OK \r\n locked', '+OK \r\n free'])
})

test('a client that resets its connection removes no message', async () => {
  const maildir = maildirOf('new/A "x\\n"')
  const { client, lines, ended } = await serve({}, maildir)
  const pop3 = new Pop3Client(client)
  await pop3.line()
  await pop3.say('DELE 1')
  client.resetAndDestroy()
  await ended
  expect(lines.join('')).toMatch(/reason=(dropped|eof)/)
  expect(stateOf(maildir)).toEqual(['new/A "x\\n"'])
})

test('the numbers of messages read and removed are logged', async () => {
  const { client, lines, ended } = await serve({}, maildirOf('new/A "x\\n"', 'new/B "y\\n"'))
  client.end('RETR 1\r\nDELE 1\r\nQUIT\r\n')
  client.resume()
  await ended
  expect(lines).toEqual(['pop3d: level=info event=session_ended reason=quit retrieved=1 deleted=1\n'])
})

test('a client that sends commands without reading does not fill the memory', async () => {
  const maildir = maildirOf(`cur/A ${JSON.stringify('x\n'.repeat(15_000))}`)
  const service = new MaildropService(OPTIONS)
  const log = createLog('pop3d', { write: () => {} })
  const accepted = Promise.withResolvers<Socket>()
  const listener = createServer(socket => {
    accepted.resolve(socket)
    void service.serve(new StreamConnection(socket, socket), maildir, new Uint8Array(0), log)
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const address = listener.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const client = connect(address.port, '127.0.0.1').pause()
  const server = await accepted.promise
  const count = 2000
  client.write('RETR 1\r\n'.repeat(count))
  // Waits until the server waits for the client, because its buffer is full then.
  while (!server.writableNeedDrain) await new Promise(resolve => setImmediate(resolve))
  expect(server.writableLength).toBeLessThan(1_000_000)
  let octets = 0
  client.on('data', (chunk: Buffer) => {
    octets += chunk.length
  })
  client.write('QUIT\r\n')
  client.resume()
  await once(client, 'end')
  const one = '+OK \r\n'.length + 15_000 * 3 + '.\r\n'.length
  expect(octets).toBe(count * one + 2 * '+OK \r\n'.length)
  client.end()
  listener.close()
})
