import { createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { ClientDisconnect } from '../../../src/popup/client-disconnect.ts'
import type { LoginRequest, LoginResult } from '../../../src/popup/login/authenticator.ts'
import { MonitorRequests } from '../../../src/popup/login/monitor-authenticator.ts'
import { upstreamAuthenticator } from '../../../src/popup/login/upstream-authenticator.ts'
import type { ControlChannel } from '../../../src/process/worker-process.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import { type FromLogin, parseFromLogin, type UpstreamServer } from '../../../src/wire/workers/login-process.ts'
import { eventually } from '../../harness/eventually.ts'

const ip = parseIpAddress('192.0.2.7')
if (ip === undefined) throw new TypeError('an address')
const client = { id: sessionId(7, 1), ip, port: 1, localIp: undefined, localPort: 110, tls: false, proxyIp: undefined }
const NOWHERE: UpstreamServer = { address: { kind: 'unix', path: '/nonexistent' }, tls: null, proxyHeader: false }

const requestOf = (login: string, secret: string): LoginRequest => ({
  ...{ login, secret, client },
  method: 'sasl',
  timestamp: '',
})

test('a wrong password that is repeated after a reload has the same proof', async () => {
  const sent: unknown[] = []
  const channel: ControlChannel = {
    send: message => sent.push(message),
    unsent: 0,
    onMessage: () => {},
    onClose: () => {},
    close: () => {},
  }
  const monitor = new MonitorRequests(channel)
  const tryToLogIn = (secret: string) => {
    // A reload makes another authenticator.
    const result = upstreamAuthenticator(monitor, NOWHERE)(requestOf('ann', secret), new ClientDisconnect())
    monitor.receive({ type: 'failed', n: sent.length, failure: 'credentials' })
    return result
  }
  for (const secret of ['wrong', 'wrong', 'other']) {
    expect(await tryToLogIn(secret)).toEqual({ kind: 'failed', failure: 'credentials' })
  }
  const proofs = sent.map(message => JSON.stringify(message).match(/"proof":"(\w+)"/)?.[1])
  expect(proofs[0]).toMatch(/^[0-9a-f]{64}$/)
  expect(proofs[1]).toBe(proofs[0])
  expect(proofs[2]).not.toBe(proofs[0])
})

/**
 * A POP3 server that reads each line into a buffer, as many servers do. The rest of a longer line
 * is its next line. The password is `right`.
 */
class ServerBehind {
  readonly lines: string[] = []
  readonly open = new Set<Socket>()
  readonly server: Server
  constructor(size: number, replies: Readonly<Record<string, string>> = {}) {
    this.server = createServer(socket => {
      this.open.add(socket)
      socket.on('error', () => {}).on('close', () => this.open.delete(socket))
      socket.write(replies['greeting'] ?? '+OK hello\r\n')
      let held = ''
      socket.on('data', chunk => {
        held += chunk.toString('latin1')
        for (;;) {
          const end = held.indexOf('\n') + 1
          const taken = end > 0 && end <= size ? end : held.length > size ? size : 0
          if (taken === 0) return
          const line = held.slice(0, taken).replace(/\r?\n$/, '')
          held = held.slice(taken)
          this.lines.push(line)
          const verb = line.split(' ', 1)[0] ?? ''
          const own = verb === 'PASS' ? (line === 'PASS right' ? '+OK\r\n' : '-ERR wrong\r\n') : '+OK\r\n'
          socket.write(replies[verb] ?? own)
        }
      })
    })
  }
}

let behind: ServerBehind | undefined
afterEach(() => {
  for (const socket of behind?.open ?? []) socket.destroy()
  behind?.server.close()
})

/** A login at that server, whose monitor admits and announces. */
async function logIn(
  server: ServerBehind,
  login: string,
  secret: string,
  disconnect = new ClientDisconnect(),
): Promise<{ result: LoginResult; outcome: string | undefined; sent: readonly FromLogin[] }> {
  behind = server
  await new Promise<void>(resolve => server.server.listen(0, '127.0.0.1', resolve))
  const at = server.server.address()
  if (at === null || typeof at === 'string') throw new TypeError('a port')
  const sent: FromLogin[] = []
  const channel: ControlChannel = {
    send: raw => {
      const message = parseFromLogin(raw)
      if (message === undefined) throw new TypeError('a message of a login process')
      sent.push(message)
      const { type } = message
      if (type === 'attempt') setImmediate(() => monitor.receive({ type: 'proceed', n: message.n }))
      if (type !== 'outcome') return
      const { n, outcome } = message
      setImmediate(() =>
        monitor.receive(outcome === 'yes' ? { type: 'announced', n } : { type: 'failed', n, failure: 'credentials' }),
      )
    },
    unsent: 0,
    onMessage: () => {},
    onClose: () => {},
    close: () => {},
  }
  const monitor = new MonitorRequests(channel)
  const address = { kind: 'tcp', host: '127.0.0.1', port: at.port } as const
  const authenticate = upstreamAuthenticator(monitor, { address, tls: null, proxyHeader: false })
  const result = await authenticate(requestOf(login, secret), disconnect)
  if (result.kind === 'open') result.stream.destroy()
  const last = sent.find(message => message.type === 'outcome')
  return { result, outcome: last?.type === 'outcome' ? last.outcome : undefined, sent }
}

test.each([512, 1024, 8191])(
  'a name that a buffer of %i octets splits into USER and a second command is refused before it is sent',
  async size => {
    const server = new ServerBehind(size)
    const login = `${'a'.repeat(size - 'USER '.length)}NOOP`
    expect(await logIn(server, login, 'wrong')).toMatchObject({ outcome: 'no', result: { kind: 'failed' } })
    expect(server.lines).toEqual([])
  },
)

test('a command has at most the 255 octets that each server accepts', async () => {
  const longest = 255 - 'USER \r\n'.length
  const server = new ServerBehind(255)
  expect(await logIn(server, 'a'.repeat(longest), 'right')).toMatchObject({ outcome: 'yes' })
  expect(await logIn(new ServerBehind(255), 'a'.repeat(longest + 1), 'right')).toMatchObject({ outcome: 'no' })
  expect(await logIn(new ServerBehind(255), 'a', 'b'.repeat(longest))).toMatchObject({ outcome: 'no' })
  expect(behind?.lines).toEqual(['USER a', `PASS ${'b'.repeat(longest)}`])
  expect(await logIn(new ServerBehind(255), 'a', 'b'.repeat(longest + 1))).toMatchObject({ outcome: 'no' })
  expect(behind?.lines).toEqual([])
})

test.each(['ann bob', 'ann ', ' ann', 'ann\tbob', 'ann\r\nNOOP', 'ann\nNOOP', 'ann\x7f'])(
  'the name %j, of which a server may ignore a part, is refused before it is sent',
  async login => {
    const server = new ServerBehind(512)
    expect(await logIn(server, login, 'right')).toMatchObject({ outcome: 'no' })
    expect(server.lines).toEqual([])
  },
)

test.each(['right\r\nNOOP', 'right\n', 'right\r', 'right\0'])('the password %j is refused', async secret => {
  const server = new ServerBehind(512)
  expect(await logIn(server, 'ann', secret)).toMatchObject({ outcome: 'no' })
  expect(server.lines).toEqual([])
})

test('a password may have spaces', async () => {
  const server = new ServerBehind(512)
  await logIn(server, 'ann', ' two  words ')
  expect(server.lines).toEqual(['USER ann', 'PASS  two  words '])
})

test.each([
  ['greeting', '+OK hello\r\n+OK\r\n'],
  ['USER', '+OK\r\n+OK\r\n'],
  ['PASS', '+OK\r\n-ERR wrong\r\n'],
])('a second reply behind the one to %s proves nothing', async (to, replies) => {
  expect(await logIn(new ServerBehind(512, { [to]: replies }), 'ann', 'wrong')).toMatchObject({ outcome: 'temporary' })
})

test('a client that disconnects closes the connection to the server', async () => {
  const server = new ServerBehind(512, { PASS: '' })
  const disconnect = new ClientDisconnect()
  const login = logIn(server, 'ann', 'right', disconnect)
  await eventually('the password is sent', () => server.lines.length === 2)
  disconnect.signal()
  await eventually('the connection to the server is closed', () => server.open.size === 0)
  expect((await login).result).toEqual({ kind: 'failed', failure: 'temporary' })
})
