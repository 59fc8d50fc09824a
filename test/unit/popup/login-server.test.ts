import { createServer, type Socket } from 'node:net'
import { Duplex, PassThrough } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { LoginSession, type LoginSessionHost } from '../../../src/popup/login/session.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import { formatProxyV2 } from '../../../src/wire/preamble.ts'
import type { LoginSettings } from '../../../src/wire/workers/login-process.ts'
import { CHANNEL_LINE } from '../../../src/wire/workers/maildrop-worker.ts'
import { eventually } from '../../harness/eventually.ts'
import { LoginServerForTests } from '../../harness/pop3/login-server.ts'
import { internetSocketsOf } from '../../harness/processes/process-status.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const running: LoginServerForTests[] = []
afterEach(() => {
  for (const one of running.splice(0)) one.stop()
})

async function start(settings: Partial<LoginSettings> = {}) {
  const login = new LoginServerForTests(settings)
  running.push(login)
  return { login, port: await login.listen() }
}

/** More than the kernel keeps for a client that does not read. */
const LONG_NAME = 'x'.repeat(16_000_000)

describe('replies before login', () => {
  const CAPABILITIES = /IMPLEMENTATION auth-relay\r\n\.\r\n/g
  const capabilitiesIn = (text: string): number => text.match(CAPABILITIES)?.length ?? 0

  /** A session whose client reads nothing until `take` is called. */
  function stuckSession(log: string[] = []) {
    const login = new LoginServerForTests()
    running.push(login)
    let output = ''
    let isReading = false
    let unsent = 0
    const held: (() => void)[] = []
    const stream = new Duplex({
      allowHalfOpen: true,
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        output += chunk.toString('latin1')
        if (isReading) done()
        else held.push(done)
      },
    })
    const ip = parseIpAddress('192.0.2.7') ?? expect.unreachable()
    const none = { port: undefined, localIp: undefined, localPort: undefined, proxyIp: undefined }
    const host: LoginSessionHost = {
      log: createLog('popup', { write: () => {} }),
      authenticate: () => expect.unreachable(),
      loginTime: 60_000,
      idleLimit: 60_000,
      preamble: undefined,
      stls: undefined,
      apop: true,
      timestampFor: () => '<1.1.1@mx>',
      optionsFor: client => login.server.optionsFor(client),
      preambleRefused: () => {},
      anotherProtocol: () => {},
      oldTlsRemedy: () => undefined,
      moveTo: () => true,
      admit: () => true,
      loggedIn: () => {},
      left: () => log.push('left'),
      disconnected: () => log.push('disconnected'),
    }
    const session = new LoginSession(host, new StreamConnection(stream, stream), {
      id: sessionId(1, 1),
      ip,
      tls: false,
      ...none,
    })
    session.start()
    return {
      stream,
      session,
      output: () => output,
      most: () => {
        unsent = Math.max(unsent, stream.writableLength)
        return unsent
      },
      startReading: () => {
        isReading = true
        for (const done of held.splice(0)) done()
      },
    }
  }
  const turns = async (count: number): Promise<void> => {
    for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate)
  }

  test('wait in the client’s input, not in memory, while the client does not read', async () => {
    const { stream, most, startReading, output } = stuckSession()
    stream.push('CAPA\r\n'.repeat(100))
    for (let turn = 0; turn < 100; turn += 1) {
      await turns(1)
      expect(most()).toBeLessThan(8_192)
    }
    expect(most()).toBeGreaterThan(4_096)
    startReading()
    await eventually('all lines are answered', () => capabilitiesIn(output()) === 100)
    expect(most()).toBeLessThan(8_192)
    stream.destroy()
  })

  test('are written for a few dozen lines at most in one turn of the event loop', async () => {
    const { stream, startReading, output } = stuckSession()
    startReading()
    stream.push('NOOP\r\n'.repeat(100))
    const counts: number[] = []
    while ((counts.at(-1) ?? 0) < 100) {
      await turns(1)
      counts.push((output().match(/\+OK \r\n/g) ?? []).length)
    }
    const steps = counts.map((count, index) => count - (counts[index - 1] ?? 0))
    expect(Math.max(...steps)).toBeLessThanOrEqual(64)
    stream.destroy()
  })

  test('a client that sends lines without end gets one reply and is closed', async () => {
    const { stream, startReading, output } = stuckSession()
    startReading()
    stream.push('\n'.repeat(65_000))
    await eventually('closed', () => stream.destroyed)
    expect(output().split('\r\n').slice(-3)).toEqual(['-ERR authorization first', '-ERR too many unknown commands', ''])
    expect(output().length).toBeLessThan(1_000)
  })

  test('the end of a session is reported when its socket is closed, and at once if it frees a place', async () => {
    const log: string[] = []
    const { stream, session } = stuckSession(log)
    stream.push('QUIT\r\n')
    await eventually('over', () => log.includes('left'))
    await turns(3)
    expect(log).toEqual(['left'])
    session.giveWay()
    await eventually('the client has disconnected', () => log.includes('disconnected'))
    expect([log, stream.destroyed]).toEqual([['left', 'disconnected'], true])
  })
})

describe('places before login', () => {
  test('of one address are refused when all are taken, and are free again when a client has disconnected', async () => {
    const { login, port } = await start({ maxPerAddress: 2 })
    const [first] = await Promise.all([1, 2].map(() => login.client(port).receives(/^\+OK/)))
    await (await login.client(port).receives(/^-ERR \[SYS\/TEMP\] too many/)).ends()
    await login.client(port, '127.0.0.2').receives(/^\+OK/)
    await first?.write('QUIT\r\n').ends()
    await eventually('the place is free', async () => /^\+OK/.test((await login.client(port).receives(/\n/)).output))
  })

  test('are kept by a session that is over until its socket is closed', async () => {
    const { login, port } = await start({ maxPerAddress: 1, hostname: LONG_NAME })
    const slow = login.client(port)
    slow.socket.pause()
    await eventually('connected', () => login.lines.some(line => line.includes('event=client_connected')))
    await login.server.drain()
    await login.client(port).receives(/^-ERR \[SYS\/TEMP\] too many/)
    slow.socket.resume()
    await slow.ends()
    await eventually('the place is free', async () => /^\+OK/.test((await login.client(port).receives(/\n/)).output))
  })

  test('of sessions that are over, but whose last reply was not read, are given to new clients first', async () => {
    const { login, port } = await start({ maxConnections: 2, hostname: LONG_NAME })
    const slow = login.client(port)
    slow.socket.pause()
    await eventually('connected', () => login.lines.some(line => line.includes('event=client_connected')))
    await login.server.drain()
    const waiting = login.client(port)
    await waiting.receives(/^\+OK/)
    await login.client(port).receives(/^\+OK/)
    slow.socket.resume()
    await slow.ends()
    expect(slow.output.length).toBeLessThan(LONG_NAME.length)
    expect(waiting.ended).toBe(false)
  })

  test('one address that sends invalid commands and QUIT and never reads holds no more sockets than it has places', async () => {
    const { login, port } = await start({ maxPerAddress: 20 })
    const clients = Array.from({ length: 200 }, () => {
      const client = login.client(port)
      client.socket.pause()
      client.write(`${'\n'.repeat(60_000)}QUIT\r\n`)
      return client
    })
    await eventually('every client is served or refused', () => {
      const events = login.lines.filter(line => /event=(client_connected|connection_refused)/.test(line)).length
      const ours = internetSocketsOf(process.pid).filter(
        ({ local, state }) =>
          state === 'connected' && local.endsWith(`:${port.toString(16).toUpperCase().padStart(4, '0')}`),
      )
      expect(ours.length).toBeLessThanOrEqual(20)
      return events === clients.length
    })
    await login.client(port, '127.0.0.2').receives(/^\+OK/)
  })
})

test('a relayed session ends, and its place is free, when the process behind it does not answer any more', async () => {
  const { path, remove } = temporaryDirectory()
  // A worker that hangs: it accepts no connections, and a relayed session gets no answer.
  const connections: Socket[] = []
  const worker = createServer({ allowHalfOpen: true }, connection => {
    connections.push(connection)
    connection
      .on('error', () => {})
      .once('data', octets => {
        if (String(octets) === `${CHANNEL_LINE}\n`) connection.destroy()
      })
  }).listen(`${path}/worker.sock`)
  try {
    // The margin of a minute is part of the limit: 300 ms.
    const { login, port } = await start({ maxPerAddress: 1, idleTime: 300 - 60_000 })
    const client = login.client(port).write('USER ann\r\nPASS x\r\nNOOP\r\n')
    const request = await eventually('a request', () => login.requests[0])
    login.answer({ type: 'open', n: request.n, socket: `${path}/worker.sock`, ticket: 'ticket' })
    await client.ends()
    await login.client(port).receives(/^\+OK/)
    expect(connections).toHaveLength(2)
  } finally {
    for (const connection of connections) connection.destroy()
    worker.close()
    remove()
  }
})

test('behind a server that opens one mailbox under many names, a customer network has the share of an owner', async () => {
  const { login, port } = await start({ maxPerOwner: 2 })
  const behind: Duplex[] = []
  login.server.authenticate = async () => {
    const stream = new PassThrough()
    behind.push(stream)
    return { kind: 'open', stream, reply: [Buffer.from('+OK in\r\n')] }
  }
  const logIn = (name: string, from: string) => login.client(port, from).write(`USER ${name}\r\nPASS x\r\n`)
  const first = await logIn('u@1', '127.0.0.2').receives(/\+OK in/)
  await logIn('u@2', '127.0.0.2').receives(/\+OK in/)
  await logIn('u@3', '127.0.0.2').receives(/-ERR \[IN-USE\]/)
  await logIn('u@4', '127.0.0.3').receives(/\+OK in/)
  expect(login.lines.filter(line => line.includes('login_refused'))).toEqual([
    expect.stringContaining('reason=max_per_owner'),
  ])
  first.socket.destroy()
  await eventually('its session has ended', () => behind[0]?.destroyed)
  await logIn('u@5', '127.0.0.2').receives(/\+OK in/)
  for (const stream of behind) stream.destroy()
})

describe('another protocol than POP3', () => {
  const V2 = formatProxyV2(
    { ip: parseIpAddress('192.0.2.7') ?? expect.unreachable(), port: 1 },
    { ip: parseIpAddress('192.0.2.8') ?? expect.unreachable(), port: 110 },
  )
  const linesAbout = (login: LoginServerForTests, event: string, level: string): readonly string[] =>
    login.lines.filter(line => line.includes(`level=${level} event=${event} `))

  test.each([
    ['version 1', Buffer.from('PROXY TCP4 192.0.2.7 192.0.2.8 1 110\r\nUSER ann\r\nPASS x\r\n')],
    ['version 2', Buffer.concat([V2, Buffer.from('USER ann\r\nPASS x\r\n')])],
  ])('a PROXY header of %s that is not expected is refused, with the remedy once a day', async (_name, octets) => {
    const { login, port } = await start()
    for (let count = 0; count < 3; count += 1) await login.client(port).write(octets).ends()
    const [only, ...more] = linesAbout(login, 'proxy_header_refused', 'warn')
    expect([only, more]).toEqual([expect.stringContaining('popup.proxy_listen'), []])
    expect(linesAbout(login, 'proxy_header_refused', 'debug')).toHaveLength(2)
    expect(login.requests).toEqual([])
    const output = await login.client(port).write(octets).ends()
    expect(output.output).toMatch(/^\+OK [^\r]*\r\n-ERR a PROXY header is not expected here\r\n$/)
    await login
      .client(port)
      .write('PROXY\r\nCAPA\r\n')
      .receives(/-ERR authorization first\r\n\+OK /)
  })

  test('a TLS handshake on a port without TLS is refused, with the remedy once a day', async () => {
    const { login, port } = await start()
    for (let count = 0; count < 2; count += 1) {
      const { output } = await login.client(port).write(Buffer.from('1603010200010001fc0303', 'hex')).ends()
      expect(output).toMatch(/^\+OK [^\r]*\r\n$/)
    }
    const [only, ...more] = linesAbout(login, 'tls_refused', 'info')
    expect([only, more]).toEqual([expect.stringContaining('port 995'), []])
  })

  test('without an expected PROXY header the log names the other setting', async () => {
    const { login } = await start()
    const port = await login.listen({ proxy: true })
    await login.client(port).write('USER ann\r\n').ends()
    await eventually('logged', () => linesAbout(login, 'proxy_refused', 'warn').length === 1)
    expect(login.lines.join('')).toMatch(/reason="no PROXY header: clients that send none belong to .*popup\.listen"/)
    // A client that waits for a greeting is logged once a day; a probe that disconnects is not.
    const waiting = [login.client(port, '127.0.0.2'), login.client(port, '127.0.0.2')]
    login.client(port, '127.0.0.3').socket.end()
    await Promise.all(waiting.map(client => client.ends()))
    const [, late, ...more] = linesAbout(login, 'proxy_refused', 'warn')
    expect([late, more]).toEqual([
      expect.stringMatching(/ip=127\.0\.0\.2 reason="no PROXY header within 3000 ms: /),
      [],
    ])
  })
})

describe('a full process', () => {
  test('closes the oldest connection of the address with the most connections', async () => {
    const { login, port } = await start({ maxConnections: 4 })
    const single = await login.client(port, '127.0.0.2').receives(/^\+OK/)
    const crowd = []
    for (let count = 0; count < 3; count += 1) crowd.push(await login.client(port, '127.0.0.3').receives(/^\+OK/))
    await login.client(port, '127.0.0.4').receives(/^\+OK/)
    await crowd[0]?.ends()
    // Four connections again: two of the crowd.
    await login.client(port, '127.0.0.5').receives(/^\+OK/)
    await crowd[1]?.ends()
    expect([single.ended, crowd[2]?.ended]).toEqual([false, false])
    await login.client(port, '127.0.0.6').receives(/^\+OK/)
    await single.ends()
  })

  test('skips a client whose password is being checked', async () => {
    const { login, port } = await start({ maxConnections: 2 })
    const busy = await login
      .client(port, '127.0.0.2')
      .write('USER ann\r\nPASS x\r\n')
      .receives(/^\+OK .*\r\n\+OK/)
    await eventually('a request arrives', () => login.requests.length === 1)
    const idle = await login.client(port, '127.0.0.3').receives(/^\+OK/)
    await login.client(port, '127.0.0.4').receives(/^\+OK/)
    await idle.ends()
    login.answer({ type: 'failed', n: login.requests[0]?.n ?? 0, failure: 'credentials' })
    await busy.receives(/-ERR \[AUTH\]/)
  })

  test('clients whose passwords are being checked make room for another address', async () => {
    const { login, port } = await start({ maxConnections: 3 })
    const crowd = []
    for (let count = 0; count < 3; count += 1) {
      crowd.push(
        await login
          .client(port, '127.0.0.2')
          .write('USER ann\r\nPASS x\r\n')
          .receives(/^\+OK .*\r\n\+OK/),
      )
      await eventually('a request arrives', () => login.requests.length === count + 1)
    }
    await login.client(port, '127.0.0.3').receives(/^\+OK/)
    await crowd[0]?.ends()
    expect(crowd.map(({ ended }) => ended)).toEqual([true, false, false])
  })
})
