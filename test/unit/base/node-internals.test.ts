import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fstatSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { duplexPair } from 'node:stream'
import { type ConnectionOptions, connect, createSecureContext, type SecureContext, TLSSocket } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import {
  answerTicketKeys,
  checkMessages,
  descriptorOf,
  destroyOnTlsError,
  onceSecure,
  removeKeylogHook,
  takesAtOnce,
  verifyErrorOf,
} from '../../../src/base/node-internals.ts'
import { eventually } from '../../harness/eventually.ts'
import { makeCertificate } from '../../harness/pop3/sslwrap.ts'

const directory = mkdtempSync(join(tmpdir(), 'node-internals-'))
const [own, other] = ['own', 'other'].map(name => {
  const path = join(directory, name)
  makeCertificate(path, { names: ['localhost'] })
  return { cert: readFileSync(`${path}.crt`), key: readFileSync(`${path}.key`) }
})
if (own === undefined || other === undefined) throw new Error('two certificates')
const { cert, key } = own
rmSync(directory, { recursive: true })

/** A client and a server after their handshake, in memory. */
async function handshake(
  secureContext: SecureContext,
  options: ConnectionOptions = {},
  requestCert = false,
  prepare: (server: TLSSocket) => void = () => {},
) {
  const [near, far] = duplexPair()
  const server = new TLSSocket(far, { isServer: true, secureContext, requestCert, rejectUnauthorized: false })
  prepare(server)
  const client = connect({ socket: near, rejectUnauthorized: false, ...options })
  await Promise.all([once(server, 'secure'), once(client, 'secureConnect')])
  return { server, client, far }
}

test('_handle.fd: the descriptor of a server and of a socket; none after they are closed', async () => {
  const server = createServer()
  expect(() => descriptorOf(server)).toThrow('the socket has no file descriptor: it is closed')
  await once(server.listen(0, '127.0.0.1'), 'listening')
  expect(fstatSync(descriptorOf(server)).isSocket()).toBe(true)
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const socket = new Socket().connect(address.port, '127.0.0.1')
  await once(socket, 'connect')
  expect(fstatSync(descriptorOf(socket)).isSocket()).toBe(true)
  socket.destroy()
  await once(socket, 'close')
  expect(() => descriptorOf(socket)).toThrow('it is closed')
  server.close()
})

test('_handle.verifyError: no reason for a trusted certificate, and one for each other', async () => {
  const context = createSecureContext({ cert, key, ca: cert })
  const trusted = await handshake(context, { cert, key }, true)
  expect(verifyErrorOf(trusted.server)).toBeUndefined()
  const unknown = await handshake(context, other, true)
  expect(verifyErrorOf(unknown.server)).toMatch(/self-signed certificate|unable to verify/)
  const none = await handshake(context, {}, true)
  expect(verifyErrorOf(none.server)).toMatch(/peer did not return a certificate|unable to/)
  trusted.server.destroy()
  // Without a handle the result is unknown, which must not count as trusted.
  expect(verifyErrorOf(trusted.server)).toBe('cannot be verified')
})

test('_tlsError: octets that are not TLS after the handshake destroy the socket', async () => {
  const { server, client, far } = await handshake(createSecureContext({ cert, key }))
  destroyOnTlsError(server)
  client.on('error', () => {})
  server.on('error', () => {})
  // `once` of node:events would consume the error.
  const closed = new Promise(resolve => server.once('close', resolve))
  server.resume()
  far.push(Buffer.from('not a TLS record at all'))
  await closed
  expect(server.destroyed).toBe(true)
})

test('secure: the event comes once after the handshake of the server side, and a callback can be removed', async () => {
  const seen: string[] = []
  const { server, client } = await handshake(createSecureContext({ cert, key }), {}, false, socket => {
    onceSecure(socket, () => seen.push('kept'))
    onceSecure(socket, () => seen.push('removed'))()
  })
  expect(seen).toEqual(['kept'])
  server.write('x')
  await once(client, 'data')
  expect(seen).toEqual(['kept'])
  client.destroy()
})

test('a TLS write without pending output has taken the octets when it returns', async () => {
  const secureContext = createSecureContext({ cert, key })
  const servers: TLSSocket[] = []
  const listener = createServer(raw => {
    const server = new TLSSocket(raw, { isServer: true, secureContext })
    server.on('error', () => {})
    servers.push(server)
  })
  await once(listener.listen(0, '127.0.0.1'), 'listening')
  const address = listener.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const client = connect({ port: address.port, host: '127.0.0.1', rejectUnauthorized: false })
  await once(client, 'secureConnect')
  const [server] = servers
  if (server === undefined) throw new Error('no connection')
  expect([takesAtOnce(server), takesAtOnce(client), takesAtOnce(new Socket())]).toEqual([true, true, false])
  let received = ''
  client.on('data', chunk => {
    received += chunk.toString('latin1')
  })
  // Until the kernel accepts no more, because the client reads only in a later turn.
  let expected = ''
  const shared = Buffer.alloc(65_536)
  for (let round = 0; round < 2_000 && takesAtOnce(server); round += 1) {
    const size = round % 3 === 0 ? 1 + round : shared.length
    const letter = String.fromCharCode(97 + (round % 26))
    shared.fill(letter, 0, size)
    server.write(shared.subarray(0, size))
    shared.fill('#')
    expected += letter.repeat(size)
  }
  expect(takesAtOnce(server)).toBe(false)
  await eventually('all octets', () => received.length === expected.length)
  expect(received === expected).toBe(true)
  client.destroy()
  listener.close()
})

test('newListener: the hook exists, and no part of the runtime needs it', async () => {
  const { server, client } = await handshake(createSecureContext({ cert, key }), {}, false, socket => {
    // If this fails, the runtime has no hook any more, and removeKeylogHook can be deleted.
    expect(socket.listenerCount('newListener')).toBe(1)
    removeKeylogHook(socket)
    expect(socket.listenerCount('newListener')).toBe(0)
  })
  server.write('+OK\r\n')
  expect(String((await once(client, 'data'))[0])).toBe('+OK\r\n')
  client.destroy()
})

test('enableTicketKeyCallback: OpenSSL requests a key at each handshake, and resumes with it', async () => {
  const context = createSecureContext({ cert, key })
  const name = Buffer.alloc(16, 'n')
  const [hmac, aes, vector] = [Buffer.alloc(16, 'h'), Buffer.alloc(16, 'a'), Buffer.alloc(16, 'v')]
  const requests: string[] = []
  answerTicketKeys(
    context,
    (ofTicket, isNew) => {
      requests.push(isNew ? 'new' : ofTicket.toString())
      return isNew ? [1, hmac, aes, name, vector] : [2, hmac, aes]
    },
    () => {
      throw new Error('this runtime has the hook')
    },
  )
  const first = await handshake(context, { maxVersion: 'TLSv1.2' })
  expect(requests).toEqual(['new'])
  const session = first.client.getSession()
  const second = await handshake(context, { maxVersion: 'TLSv1.2', ...(session === undefined ? {} : { session }) })
  expect(second.client.isSessionReused()).toBe(true)
  expect(requests.slice(1)).toContain(name.toString())
})

test('setTicketKeys: without the hook the fixed keys are used', async () => {
  const context = createSecureContext({ cert, key })
  const native: unknown = context.context
  if (typeof native !== 'object' || native === null) throw new TypeError('a native context')
  Reflect.set(native, 'enableTicketKeyCallback', undefined)
  const keys = Buffer.alloc(48, 'k')
  answerTicketKeys(
    context,
    () => [-1],
    () => keys,
  )
  const read: unknown = Reflect.get(native, 'getTicketKeys')
  if (typeof read !== 'function') throw new TypeError('getTicketKeys')
  expect(Reflect.apply(read, native, [])).toEqual(keys)
})

describe('kChannelHandle, onread, pendingHandle, _handleQueue: messages of a child', () => {
  const children: ChildProcess[] = []
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
  })

  /**
   * Starts a child that runs a script; `fd` is its end of the channel. Returns the messages that
   * the parent receives, and how often one was refused.
   */
  function runChild(script: string, mostOctets: number) {
    const child = spawn(process.execPath, ['-e', `const fs = require('node:fs'); const fd = 3; ${script}`], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      env: {},
    })
    children.push(child)
    const received = { messages: [] as unknown[], refused: 0, isOver: false }
    child.on('message', message => received.messages.push(message))
    child.on('disconnect', () => {
      received.isOver = true
    })
    checkMessages(child, mostOctets, () => {
      received.refused += 1
    })
    return received
  }

  test('any number of messages of the greatest length arrive unchanged', async () => {
    const longest = 'x'.repeat(100_000)
    const received = runChild(
      `for (let n = 0; n < 5; n += 1) { process.send('' + n); process.send('x'.repeat(100_000)) }
       process.send('last', () => process.disconnect())`,
      longest.length + 2,
    )
    await eventually('the child has ended', () => received.isOver)
    expect(received.messages).toEqual([...[0, 1, 2, 3, 4].flatMap(n => [`${n}`, longest]), 'last'])
    expect(received.refused).toBe(0)
  })

  test('a longer message is not received, nor is a message behind it', async () => {
    const received = runChild("process.send('first'); process.send('x'.repeat(200_000)); process.send('last')", 199_999)
    await eventually('the message is refused', () => received.refused > 0)
    expect([received.messages, received.refused]).toEqual([['first'], 1])
  })

  const ACK = JSON.stringify({ cmd: 'NODE_HANDLE_ACK' })
  test.each([
    ['text that is not JSON', 'x'],
    ['an unfinished text', '"'],
    ['an empty line', ''],
    ['a number', '1'],
    ['an object', '{}'],
    ['an answer to no descriptor', ACK],
    ['a descriptor of unknown kind', JSON.stringify({ cmd: 'NODE_HANDLE', type: 'none', msg: '' })],
    ['another message of the runtime', JSON.stringify({ cmd: 'NODE_SOCKET_GET_COUNT' })],
  ])('%s is refused, and the runtime does not throw', async (_, line) => {
    const received = runChild(`fs.writeSync(fd, ${JSON.stringify(`${line}\n"later"\n`)}); process.disconnect()`, 1000)
    await eventually('the child has ended', () => received.isOver)
    expect([received.messages, received.refused]).toEqual([[], 1])
  })

  test('a descriptor is answered once; the second answer is refused', async () => {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const received = runChild(
      `process.on('message', text => {
         if (text === 'a server') return process.send('received')
         fs.writeSync(fd, '${ACK}\\n')
         process.disconnect()
       })`,
      1000,
    )
    const [child] = children
    child?.send('a server', server)
    await eventually('the first answer arrives', () => received.messages.length > 0)
    child?.send('once more')
    await eventually('the child has ended', () => received.isOver)
    server.close()
    expect([received.messages, received.refused]).toEqual([['received'], 1])
  })

  test('a descriptor of a child is refused', async () => {
    const received = runChild(
      `const server = require('node:net').createServer().listen(0, '127.0.0.1', () =>
         process.send('mine', server, () => process.disconnect()))`,
      1000,
    )
    await eventually('the descriptor is refused', () => received.refused > 0)
    expect([received.messages, received.refused]).toEqual([[], 1])
  })

  test('a message without an end does not make this process grow', async () => {
    const before = process.memoryUsage.rss()
    const total = 300
    const received = runChild(
      `const octets = Buffer.alloc(1 << 20, 'x'); let sent = 0
       const send = () => {
         try { while (sent < ${total} * octets.length) sent += fs.writeSync(fd, octets) } catch {}
         if (sent < ${total} * octets.length) setTimeout(send, 1); else process.exit()
       }
       send()`,
      100_000,
    )
    await eventually('the child has sent 300 MiB', () => received.isOver, 60_000)
    expect([received.messages, received.refused]).toEqual([[], 1])
    expect(process.memoryUsage.rss() - before).toBeLessThan(150 * 1_048_576)
  })
})
