import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { parseProxyHeader } from '../../../src/wire/preamble.ts'
import { eventually } from '../../harness/eventually.ts'
import {
  BackEnd,
  GREETING,
  makeCertificate,
  popupLike,
  SHARED_PASSWORD,
  Sslwrap,
  sslwrapCommand,
  startingSslwrap,
} from '../../harness/pop3/sslwrap.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { run } from '../../harness/processes/program.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const stops: (() => unknown)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop()
})

/** A TLS client that takes any certificate, and is closed after the test. */
function client(port: number, options: ConnectionOptions & { localAddress?: string } = {}): TLSSocket {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options })
  socket.on('error', () => {})
  stops.push(() => socket.destroy())
  return socket
}
const talk = (socket: Socket): Conversation => new Conversation('client', socket)

const { start, backEnd } = startingSslwrap(stops)
const inFrontOf = (server: BackEnd, more: Record<string, string> = {}) => ({
  backend: `127.0.0.1:${server.port}`,
  ...more,
})

describe('the SSL dialogue', () => {
  let server: BackEnd
  let sslwrap: Sslwrap
  beforeAll(async () => {
    server = await popupLike().listen()
    sslwrap = await Sslwrap.start({ listeners: [inFrontOf(server)], settings: 'workers = 2' })
  })
  afterAll(async () => {
    await sslwrap.stop()
    server.close()
  })

  test('the client gets one greeting, unchanged; the server gets the address of the client first; both logs share an id', async () => {
    const pop = talk(client(sslwrap.port, { ALPNProtocols: ['pop3'] }))
    expect((await pop.expect(/^\+OK/)).text).toBe(GREETING)
    await pop.ask('SSL 192.0.2.66:x', /^-ERR authorization first$/)
    await pop.ask('USER ann', /^\+OK received USER ann$/)
    await pop.ask('QUIT', /^\+OK bye$/)
    await pop.expectEnd()
    const received = server.received.at(-1)?.text
    expect(received).toBe(`SSL 127.0.0.1:${SHARED_PASSWORD}\r\nSSL 192.0.2.66:x\r\nUSER ann\r\nQUIT\r\n`)
    const { tls_version, alpn } = await sslwrap.event('client_connected', { id: '7f3a.12' })
    expect([tls_version, alpn]).toEqual(['TLSv1.3', 'pop3'])
    await sslwrap.event('session_ended', { id: '7f3a.12', ip: '127.0.0.1', reason: 'ended' })
    expect(sslwrap.program.lines.join()).not.toContain(SHARED_PASSWORD)
  })

  test('octets that the client sends before the greeting follow the SSL command', async () => {
    const socket = client(sslwrap.port)
    socket.write('SSL 192.0.2.66:guess\r\nQUIT\r\n')
    const pop = talk(socket)
    await pop.expect(/^\+OK </)
    await pop.expect(/^-ERR authorization first$/)
    await pop.expect(/^\+OK bye$/)
    expect(server.received.at(-1)?.text.startsWith(`SSL 127.0.0.1:${SHARED_PASSWORD}\r\n`)).toBe(true)
  })

  test('sends one ticket after each handshake', async () => {
    const socket = client(sslwrap.port)
    let tickets = 0
    socket.on('session', () => {
      tickets += 1
    })
    const pop = talk(socket)
    await pop.expect(/^\+OK/)
    await pop.ask('QUIT', /^\+OK bye$/)
    await pop.expectEnd()
    expect(tickets).toBe(1)
  })

  test('every worker resumes sessions, and each resumption brings a new ticket', async () => {
    let session: Buffer | undefined
    for (let round = 0; round < 8; round++) {
      const socket = client(sslwrap.port, session === undefined ? {} : { session })
      const previous = session
      socket.on('session', ticket => {
        session = ticket
      })
      await talk(socket).expect(/^\+OK/)
      expect(socket.isSessionReused()).toBe(round > 0)
      await eventually(
        'the client has a new ticket',
        () => session !== undefined && (previous === undefined || !session.equals(previous)),
      )
      socket.destroy()
    }
  })

  test('a half-close is passed on, and the answer still comes', async () => {
    const socket = client(sslwrap.port)
    const pop = talk(socket)
    await pop.expect(/^\+OK/)
    const received = server.received.at(-1)
    if (received !== undefined) received.staysOpen = true
    socket.end('LIST\r\n')
    await pop.expect(/^\+OK$/)
    expect(await pop.expectLinesToDot()).toEqual(['1 120'])
    await eventually('the end reaches the server', () => server.received.at(-1)?.ended)
    server.received.at(-1)?.socket.end('late\r\n')
    await pop.expect(/^late$/)
    await pop.expectEnd()
  })

  test('a client without TLS is closed and logged; a client that sends nothing is not logged as a failure', async () => {
    const plain = connectTcp(sslwrap.port, '127.0.0.1')
    plain.end('USER ann\r\n')
    await talk(plain).expectEnd()
    await sslwrap.event('tls_failed', { ip: '127.0.0.1', reason: 'the client does not speak TLS' })
    const probe = connectTcp(sslwrap.port, '127.0.0.1')
    probe.end()
    await talk(probe).expectEnd()
    await sslwrap.event('connection_closed')
  })

  test('TLS 1.1 and older, and renegotiation, are refused', async () => {
    const old = client(sslwrap.port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' })
    await eventually('closed', () => old.destroyed)
    await sslwrap.event('tls_failed', { reason: 'unsupported protocol' })
    const socket = client(sslwrap.port, { maxVersion: 'TLSv1.2' })
    await talk(socket).expect(/^\+OK/)
    const error = await new Promise(resolve => {
      socket.once('error', resolve)
      socket.renegotiate({}, resolve)
    })
    expect(String(error)).toMatch(/no renegotiation/i)
  })

  test('a client with other application protocols only is served without one', async () => {
    const socket = client(sslwrap.port, { ALPNProtocols: ['h2', 'http/1.1'] })
    await talk(socket).expect(/^\+OK/)
    expect(socket.alpnProtocol).toBe(false)
  })

  test.runIf(process.geteuid?.() === 0)('the worker has another account, and cannot read the keys', async () => {
    const pids = readFileSync(`/proc/${sslwrap.program.pid}/task/${sslwrap.program.pid}/children`, 'utf8')
      .trim()
      .split(' ')
    for (const pid of pids) {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      expect(status).toMatch(/^Uid:\s+64321\s+64321\s+64321\s+64321$/m)
      expect(status).toMatch(/^Gid:\s+64321\s+64321\s+64321\s+64321$/m)
      expect(status).toMatch(/^Groups:\s*$/m)
    }
    const key = `${sslwrap.directory.path}/tls.key`
    const read = await run(['setpriv', '--reuid=64321', '--regid=64321', '--clear-groups', 'cat', key])
    expect(read.ending?.code).toBe(1)
  })

  test('a worker that dies is replaced', async () => {
    const pids = readFileSync(`/proc/${sslwrap.program.pid}/task/${sslwrap.program.pid}/children`, 'utf8')
      .trim()
      .split(' ')
    for (const pid of pids) process.kill(Number(pid), 'SIGKILL')
    await sslwrap.event('worker_ended', { signal: 'SIGKILL' })
    await talk(client(sslwrap.port)).expect(/^\+OK/)
  })
})

test('both families on one address, a Unix socket behind sslwrap, and each protocol by its name', async () => {
  const directory = temporaryDirectory()
  stops.push(directory.remove)
  const server = popupLike()
  stops.push(() => server.close())
  await new Promise<void>(resolve => server.server.listen(`${directory.path}/pop`, resolve))
  // The worker has a separate account.
  chmodSync(directory.path, 0o755)
  chmodSync(`${directory.path}/pop`, 0o777)
  const behind = { listen: '*:0', backend: `unix:${directory.path}/pop` }
  const sslwrap = await start({
    listeners: [behind, { ...behind, protocol: 'smtp', preamble: 'none' }],
  })
  for (const [host, written] of [
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '[::1]'],
  ] as const) {
    const pop = talk(client(sslwrap.port, { host }))
    await pop.expect(/^\+OK </)
    await pop.ask('QUIT', /^\+OK bye$/)
    expect(server.received.at(-1)?.text).toBe(`SSL ${written}:${SHARED_PASSWORD}\r\nQUIT\r\n`)
  }
  const smtp = client(sslwrap.ports[1] ?? 0, { ALPNProtocols: ['pop3', 'smtp'] })
  await talk(smtp).expect(/^\+OK </)
  expect(smtp.alpnProtocol).toBe('smtp')
})

describe('failures of the server behind sslwrap', () => {
  test('unreachable: one -ERR line for POP3, nothing for others', async () => {
    const closed = await new BackEnd(() => {}).listen()
    closed.close()
    const sslwrap = await start({
      listeners: [inFrontOf(closed), inFrontOf(closed, { protocol: 'smtp', preamble: 'none' })],
    })
    const pop = talk(client(sslwrap.port))
    await pop.expect(/^-ERR \[SYS\/TEMP\] service unavailable$/)
    await pop.expectEnd()
    await talk(client(sslwrap.ports[1] ?? 0)).expectEnd()
    expect((await sslwrap.event('upstream_failed'))['reason']).toMatch(/ECONNREFUSED/)
  })

  test('a refused password: the client gets a generic sentence, the log names the shared password', async () => {
    const strict = await backEnd(
      new BackEnd(
        s => s.write('+OK ready\r\n'),
        (text, { socket }) => socket.end(`-ERR ${text}`),
      ),
    )
    const sslwrap = await start({ listeners: [inFrontOf(strict)] })
    const pop = talk(client(sslwrap.port))
    await pop.expect(/^-ERR \[SYS\/TEMP\] service unavailable$/)
    await pop.expectEnd()
    expect((await sslwrap.event('upstream_failed'))['reason']).toMatch(/shared password/)
    expect(sslwrap.program.lines.join()).not.toContain(SHARED_PASSWORD)
  })

  test('a greeting with -ERR is passed on, and the password is not sent', async () => {
    const busy = await backEnd(new BackEnd(socket => socket.write('-ERR [SYS/TEMP] busy\r\n')))
    const sslwrap = await start({ listeners: [inFrontOf(busy)] })
    const pop = talk(client(sslwrap.port))
    await pop.expect(/^-ERR \[SYS\/TEMP\] busy$/)
    await pop.expectEnd()
    expect(busy.received.map(({ text }) => text)).toEqual([''])
  })

  test('no greeting: the time limit of the greeting applies', async () => {
    const silent = await backEnd(new BackEnd(() => {}))
    const sslwrap = await start({ listeners: [inFrontOf(silent)], settings: 'connect_time = 1' })
    await talk(client(sslwrap.port)).expect(/^-ERR \[SYS\/TEMP\]/)
    expect((await sslwrap.event('upstream_failed'))['reason']).toMatch(/no greeting within 1000 ms/)
  })

  test('a reset in the middle: the client is closed', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)] })
    const pop = talk(client(sslwrap.port))
    await pop.expect(/^\+OK/)
    server.received.at(-1)?.socket.resetAndDestroy()
    await pop.expectEnd()
    await sslwrap.event('session_ended', { reason: 'failed', first: 'server' })
  })
})

describe('log lines about clients', () => {
  test('a client with old TLS only: the remedy, once a day; a client without TLS likewise', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)] })
    for (let count = 0; count < 2; count += 1) {
      const old = client(sslwrap.port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' })
      await eventually('closed', () => old.destroyed)
    }
    const plain = connectTcp(sslwrap.port, '127.0.0.1')
    plain
      .end('USER ann\r\n')
      .on('error', () => {})
      .resume()
    await sslwrap.event('tls_failed', { reason: 'the client does not speak TLS' })
    const lines = sslwrap.program.lines.filter(line => line.includes('event=tls_failed'))
    expect(lines.filter(line => line.includes('reason="unsupported protocol"'))).toHaveLength(2)
    expect(lines.filter(line => /remedy="[^"]*tls = \\"old\\"[^"]*sslwrap\.old_tls_nets"/.test(line))).toHaveLength(1)
    expect(lines.filter(line => /remedy="[^"]*port 110/.test(line))).toHaveLength(1)
  })

  test('health checks and clients that reset after QUIT are not faults', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)] })
    const reset = async (say: (pop: Conversation) => Promise<unknown>): Promise<void> => {
      const raw = connectTcp(sslwrap.port, '127.0.0.1').on('error', () => {})
      const secure = connect({ socket: raw, rejectUnauthorized: false }).on('error', () => {})
      const pop = talk(secure)
      await pop.expect(/^\+OK/)
      await say(pop)
      raw.resetAndDestroy()
    }
    await reset(async () => {})
    await sslwrap.event('session_ended', { reason: 'left', in: '0' })
    await reset(pop => pop.ask('QUIT', /^\+OK bye/))
    await eventually(
      'both sessions have ended',
      () => sslwrap.program.lines.filter(line => line.includes('event=session_ended ')).length === 2,
    )
    expect(sslwrap.program.lines.filter(line => /event=session_ended .*(broken|detail=)/.test(line))).toEqual([])
  })
})

describe('limits', () => {
  test('the time of a handshake is limited, before its first octet and after it', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)], settings: 'handshake_time = 1' })
    const silent = connectTcp(sslwrap.port, '127.0.0.1')
    const begun = connectTcp(sslwrap.port, '127.0.0.1')
    begun.write(Buffer.from('1603010200010001fc0303', 'hex'))
    await Promise.all([silent, begun].map(socket => talk(socket).expectEnd()))
    await sslwrap.event('tls_failed', { reason: 'no handshake within 1000 ms' })
    expect(server.received).toEqual([])
  })

  test('connections are limited per address and in total, and places are freed', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({
      listeners: [inFrontOf(server)],
      settings: 'max_per_address = 2\nmax_connections = 3',
    })
    const [first, second] = [client(sslwrap.port), client(sslwrap.port)]
    await Promise.all([first, second].map(socket => talk(socket).expect(/^\+OK/)))
    await talk(client(sslwrap.port)).expectEnd()
    await sslwrap.event('connection_refused', { ip: '127.0.0.1', reason: 'max_per_address' })
    await talk(client(sslwrap.port, { localAddress: '127.0.0.2' })).expect(/^\+OK/)
    await talk(client(sslwrap.port, { localAddress: '127.0.0.3' })).expectEnd()
    await sslwrap.event('connection_refused', { ip: '127.0.0.3', reason: 'max_connections' })
    first.destroy()
    await sslwrap.event('session_ended')
    await talk(client(sslwrap.port)).expect(/^\+OK/)
  })

  test('limits apply to all workers together', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({
      listeners: [inFrontOf(server)],
      settings: 'workers = 3\nmax_per_address = 5\nmax_connections = 8',
    })
    /** Clients that connect one after the other and stay; returns how many are served. */
    const servedOf = async (localAddress: string, count: number): Promise<number> => {
      let served = 0
      for (let n = 0; n < count; n += 1) {
        const greeting = await talk(client(sslwrap.port, { localAddress })).next()
        if (greeting !== undefined) served += 1
      }
      return served
    }
    // The kernel distributes the clients: of 60 each worker has received more than its share.
    expect(await servedOf('127.0.0.1', 60)).toBe(5)
    expect(await servedOf('127.0.0.2', 60)).toBe(3)
    expect(await servedOf('127.0.0.3', 10)).toBe(0)
  })

  test('unfinished handshakes from fifty addresses do not block another address, and each address loses its oldest first', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({
      listeners: [inFrontOf(server)],
      settings: 'max_per_address = 4\nmax_connections = 200',
    })
    const silent: Socket[] = []
    for (let address = 1; address <= 50; address += 1) {
      for (let count = 0; count < 4; count += 1) {
        const socket = connectTcp({ port: sslwrap.port, host: '127.0.0.1', localAddress: `127.0.1.${address}` })
        socket.on('error', () => {}).resume()
        silent.push(socket)
        await once(socket, 'connect')
        // A handshake has 30 s from its first octet on.
        socket.write(Buffer.of(0x16))
      }
    }
    const served = []
    for (let count = 0; count < 20; count += 1) {
      const socket = client(sslwrap.port, { localAddress: `127.0.2.${count}` })
      served.push(socket)
      await talk(socket).expect(/^\+OK/)
    }
    await sslwrap.event('connection_refused', { ip: '127.0.1.1', reason: 'max_connections' })
    await eventually('as many silent connections are closed', () => silent.filter(({ closed }) => closed).length === 20)
    // The oldest connection of each of the first twenty addresses.
    expect(silent.flatMap(({ closed }, index) => (closed ? [index] : []))).toEqual(served.map((_, index) => index * 4))
    // An address at its limit displaces no other connection.
    await talk(client(sslwrap.port, { localAddress: '127.0.1.50' })).expectEnd()
    await sslwrap.event('connection_refused', { ip: '127.0.1.50', reason: 'max_per_address' })
    expect(silent.filter(({ closed }) => closed)).toHaveLength(20)
    for (const socket of silent) socket.destroy()
  })

  test('a download is complete, also if the client reads irregularly', async () => {
    const bytes = randomBytes(30_000_000)
    const server = await backEnd(new BackEnd(socket => socket.end(bytes)))
    const sslwrap = await start({ listeners: [inFrontOf(server, { preamble: 'none' })] })
    const hashes = [1, 2, 3, 4].map(async clientNumber => {
      const socket = client(sslwrap.port, clientNumber === 1 ? { maxVersion: 'TLSv1.2' } : {})
      const hash = createHash('sha256')
      let chunks = 0
      for await (const chunk of socket) {
        hash.update(chunk)
        if (++chunks % clientNumber === 0) for (let n = 0; n < 5; n++) await turn()
      }
      return hash.digest('hex')
    })
    const expected = createHash('sha256').update(bytes).digest('hex')
    expect(new Set(await Promise.all(hashes))).toEqual(new Set([expected]))
  })

  test('a client that does not read stops the server, and the memory does not grow', async () => {
    const chunk = Buffer.alloc(65_536, 0x61)
    let sent = 0
    const flood = await backEnd(
      new BackEnd(socket => {
        const more = (): void => {
          do sent += chunk.length
          while (socket.write(chunk) && sent < 500_000_000)
        }
        socket.on('drain', more)
        more()
      }),
    )
    const sslwrap = await start({ listeners: [inFrontOf(flood, { preamble: 'none' })] })
    const slow = connectTcp(sslwrap.port, '127.0.0.1')
    stops.push(() => slow.destroy())
    const tls = client(sslwrap.port)
    tls.pause()
    let last = -1
    await eventually('the server stops sending', () => {
      const isStill = sent > 0 && sent === last
      last = sent
      return isStill
    })
    expect(sent).toBeLessThan(60_000_000)
  })

  test('idle connections are closed', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)], settings: 'idle_time = 1' })
    const pop = talk(client(sslwrap.port))
    await pop.expect(/^\+OK/)
    await pop.expectEnd()
    await sslwrap.event('session_ended', { reason: 'idle' })
  })

  test('after SIGTERM open connections may finish within the drain time', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)], settings: 'drain_time = 60' })
    const pop = talk(client(sslwrap.port))
    await pop.expect(/^\+OK/)
    sslwrap.program.signal('SIGTERM')
    await eventually('new connections are refused', async () => {
      const probe = connectTcp(sslwrap.port, '127.0.0.1')
      return new Promise<boolean>(resolve => {
        probe.once('error', () => resolve(true))
        probe.once('connect', () => {
          probe.destroy()
          resolve(false)
        })
      })
    })
    await pop.ask('QUIT', /^\+OK bye$/)
    expect(await sslwrap.program.ended).toEqual({ code: 0, signal: null })
  })
})

describe('certificates', () => {
  test('by server name, wildcards, key types side by side', async () => {
    const directory = temporaryDirectory()
    stops.push(directory.remove)
    makeCertificate(`${directory.path}/wild`, { names: ['*.example.net', 'example.net'] })
    makeCertificate(`${directory.path}/rsa`, { names: ['mx.example.org'], type: 'rsa' })
    const server = await backEnd(popupLike())
    const more = ['wild', 'rsa'].map(
      name => `[[sslwrap.certificate]]\ncert = "${directory.path}/${name}.crt"\nkey = "${directory.path}/${name}.key"`,
    )
    const sslwrap = await start({ listeners: [inFrontOf(server)], settings: more.join('\n') })
    const nameFor = async (options: ConnectionOptions): Promise<string> => {
      const socket = client(sslwrap.port, options)
      await talk(socket).expect(/^\+OK/)
      const certificate = socket.getPeerX509Certificate()
      return `${certificate?.subject} ${certificate?.publicKey.asymmetricKeyType}`
    }
    expect(await nameFor({})).toBe('CN=mx.example.org ec')
    expect(await nameFor({ servername: 'unknown.example' })).toBe('CN=mx.example.org ec')
    expect(await nameFor({ servername: 'A.Example.NET' })).toBe('CN=*.example.net ec')
    expect(await nameFor({ servername: 'a.b.example.net' })).toBe('CN=mx.example.org ec')
    expect(await nameFor({ servername: 'mx.example.org', sigalgs: 'rsa_pss_rsae_sha256' })).toBe(
      'CN=mx.example.org rsa',
    )
  })

  test('a new one is used at SIGHUP and when its file changes; an invalid one is not, and open sessions stay', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)] })
    const { path } = sslwrap.directory
    const fingerprint = async (): Promise<string | undefined> => {
      const socket = client(sslwrap.port)
      await talk(socket).expect(/^\+OK/)
      return socket.getPeerX509Certificate()?.fingerprint256
    }
    let ticket: Buffer | undefined
    const resumable = client(sslwrap.port)
    resumable.on('session', session => {
      ticket = session
    })
    const running = talk(resumable)
    await running.expect(/^\+OK/)
    const first = await fingerprint()
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'], days: 7 })
    sslwrap.program.signal('SIGHUP')
    await sslwrap.event('settings_reloaded')
    expect((await sslwrap.event('certificate_expiring'))['days']).toBe('6')
    // `reloaded` is logged when the workers use it.
    const second = await fingerprint()
    expect(second).not.toBe(first)
    const old = client(sslwrap.port, { session: await eventually('the client has a ticket', () => ticket) })
    await talk(old).expect(/^\+OK/)
    expect(old.isSessionReused()).toBe(true)
    writeFileSync(`${path}/tls.crt`, 'nonsense')
    await sslwrap.event('reload_failed', { trigger: 'file' })
    sslwrap.program.signal('SIGHUP')
    const failed = await sslwrap.event('reload_failed', { trigger: 'signal' })
    expect(`${failed['reason']} ${failed['remedy']}`).toMatch(/no certificate in PEM form/)
    expect(await fingerprint()).toBe(second)
    // As certbot does: the new pair is in another directory, and the old names become links to it.
    makeCertificate(`${path}/archive2`, { names: ['mx.example.org'] })
    for (const kind of ['crt', 'key']) {
      symlinkSync(`archive2.${kind}`, `${path}/link`)
      renameSync(`${path}/link`, `${path}/tls.${kind}`)
    }
    await sslwrap.program.waitFor(
      'sslwrap reloads without a signal',
      () =>
        sslwrap.program.log.some(
          ({ fields }) => fields['event'] === 'settings_reloaded' && fields['trigger'] === 'file',
        ),
      30_000,
    )
    await eventually('the third certificate is used', async () => ![first, second].includes(await fingerprint()))
    await running.ask('QUIT', /^\+OK bye$/)
  })

  test('settings that SIGHUP changes apply to the next client; settings that need a restart are named', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server, { listen: '127.0.0.1:0' })] })
    const file = `${sslwrap.directory.path}/auth-relay.toml`
    const text = readFileSync(file, 'utf8')
    writeFileSync(file, text.replace('[sslwrap]', '[sslwrap]\nalpn_strict = true\nmax_connections = 1'))
    sslwrap.program.signal('SIGHUP')
    await sslwrap.event('settings_reloaded')
    const http = client(sslwrap.port, { ALPNProtocols: ['h2'] })
    await sslwrap.event('tls_failed', { reason: 'no application protocol' })
    await eventually('closed', () => http.destroyed)
    await talk(client(sslwrap.port)).expect(/^\+OK/)
    await talk(client(sslwrap.port)).expectEnd()
    await sslwrap.event('connection_refused', { reason: 'max_connections' })
    writeFileSync(file, text.replace('workers = 1', 'workers = 2'))
    sslwrap.program.signal('SIGHUP')
    await sslwrap.event('settings_reloaded', { restart_for: 'sslwrap.workers' })
    // The other settings of the file are applied nevertheless.
    await eventually('a client that the old settings refused is served', () =>
      talk(client(sslwrap.port, { ALPNProtocols: ['h2'] }))
        .expect(/^\+OK/)
        .then(
          () => true,
          () => false, // the worker has not applied the settings yet
        ),
    )
  })

  test('Prometheus reads the expiry times, on loopback only', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({
      listeners: [inFrontOf(server)],
      settings: 'workers = 2\nmetrics_listen = "127.0.0.1:0"',
    })
    const address = /metrics=(\S+)/.exec(sslwrap.program.lines.join('\n'))?.[1]
    const socket = client(sslwrap.port)
    await talk(socket).expect(/^\+OK/)
    const seconds = Number(socket.getPeerX509Certificate()?.validToDate) / 1000
    const { path } = sslwrap.directory
    const labels = `path="${path}/tls.crt",name="mx.example.org"`
    expect(await (await fetch(`http://${address}/metrics`)).text()).toContain(
      `sslwrap_certificate_expires_timestamp_seconds{${labels}} ${seconds}\n`,
    )
  })

  test('of clients: requested, and checked if there is one', async () => {
    const directory = temporaryDirectory()
    stops.push(directory.remove)
    const { path } = directory
    makeCertificate(`${path}/ca`, { names: ['ca.example'] })
    makeCertificate(`${path}/ann`, { names: ['ann'], ca: `${path}/ca` })
    makeCertificate(`${path}/eve`, { names: ['ann'] })
    const present = (name: string): ConnectionOptions => ({
      cert: readFileSync(`${path}/${name}.crt`),
      key: readFileSync(`${path}/${name}.key`),
    })
    const server = await backEnd(new BackEnd(socket => socket.write('+OK ready\r\n')))
    const settings = `client_certificate = "optional"\nclient_ca = "${path}/ca.crt"`
    const sslwrap = await start({ listeners: [inFrontOf(server, { preamble: 'proxy-v2' })], settings })
    const greetingFor = async (options: ConnectionOptions) => {
      await talk(client(sslwrap.port, options)).expect(/^\+OK/)
      // The server sends its greeting first, possibly before it has read the header.
      const answer = await eventually('the header arrives', () => {
        const header = parseProxyHeader(Buffer.from(server.received.at(-1)?.text ?? '', 'latin1'))
        return header.kind === 'more' ? undefined : header
      })
      return answer.kind === 'done' && answer.header.kind === 'proxied' ? answer.header.fields.tls : answer
    }
    expect(await greetingFor({})).toMatchObject({ version: 'TLSv1.3', verified: false })
    expect(await greetingFor(present('ann'))).toMatchObject({ version: 'TLSv1.3', verified: true, commonName: 'ann' })
    await talk(client(sslwrap.port, present('eve'))).expectEnd()
    expect((await sslwrap.event('tls_failed'))['reason']).toMatch(/client certificate|certificate verify failed/)
    expect(server.received).toHaveLength(2)
  })

  test('of clients: required and checked', async () => {
    const directory = temporaryDirectory()
    stops.push(directory.remove)
    const { path } = directory
    makeCertificate(`${path}/ca`, { names: ['ca.example'] })
    makeCertificate(`${path}/ann`, { names: ['ann'], ca: `${path}/ca` })
    makeCertificate(`${path}/eve`, { names: ['ann'] })
    const server = await backEnd(popupLike())
    const settings = `client_certificate = "required"\nclient_ca = "${path}/ca.crt"`
    const sslwrap = await start({ listeners: [inFrontOf(server)], settings })
    const present = (name: string): ConnectionOptions => ({
      cert: readFileSync(`${path}/${name}.crt`),
      key: readFileSync(`${path}/${name}.key`),
    })
    await talk(client(sslwrap.port, present('ann'))).expect(/^\+OK/)
    await talk(client(sslwrap.port)).expectEnd()
    await talk(client(sslwrap.port, present('eve'))).expectEnd()
    await talk(client(sslwrap.port, { ...present('eve'), maxVersion: 'TLSv1.2' })).expectEnd()
    expect(server.received).toHaveLength(1)
  })

  test('strict ALPN refuses a client that offers only other protocols', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [inFrontOf(server)], settings: 'alpn_strict = true' })
    await talk(client(sslwrap.port, { ALPNProtocols: ['h2'] })).expectEnd()
    await sslwrap.event('tls_failed', { reason: 'no application protocol' })
    await talk(client(sslwrap.port)).expect(/^\+OK/)
  })

  test('old TLS on a separate listener, for listed networks', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({
      listeners: [inFrontOf(server), inFrontOf(server, { tls: 'old' })],
      settings: 'old_tls_nets = ["127.0.0.1"]',
    })
    await sslwrap.event('old_tls_enabled', { networks: '127.0.0.1/32' })
    const old: ConnectionOptions = { minVersion: 'TLSv1', maxVersion: 'TLSv1', ciphers: 'DEFAULT:@SECLEVEL=0' }
    const socket = client(sslwrap.ports[1] ?? 0, old)
    await talk(socket).expect(/^\+OK/)
    expect(socket.getProtocol()).toBe('TLSv1')
    await talk(client(sslwrap.port, old)).expectEnd()
    await talk(client(sslwrap.ports[1] ?? 0, { localAddress: '127.0.0.2' })).expectEnd()
    await sslwrap.event('connection_refused', { reason: 'network' })
  })
})

describe('refuses to start', () => {
  const attempt = async (spoil: (path: string) => void, settings = '', listener: Record<string, string> = {}) => {
    const sslwrap = new Sslwrap({ listeners: [{ backend: '127.0.0.1:1', ...listener }], settings })
    await sslwrap.program.stop()
    const { path } = sslwrap.directory
    stops.push(sslwrap.directory.remove)
    spoil(path)
    const program = await run(sslwrapCommand('--config', `${path}/auth-relay.toml`))
    return { code: program.ending?.code, lines: program.lines.filter(line => !line.includes('privileges_shared')) }
  }

  test.each([
    ['with an empty password', (p: string) => writeFileSync(`${p}/pass`, ''), /holds no secret/],
    ['with the seed password', (p: string) => writeFileSync(`${p}/pass`, 'password\n'), /default secret/],
    ['without a password file', (p: string) => renameSync(`${p}/pass`, `${p}/gone`), /cannot read the secret file/],
    [
      'with another key',
      (p: string) => makeCertificate(`${p}/x`, { names: ['x'] }) ?? renameSync(`${p}/x.key`, `${p}/tls.key`),
      /does not belong/,
    ],
    ['with a key that others can read', (p: string) => chmodSync(`${p}/tls.key`, 0o644), /tls\.key: .*chmod o-rwx/],
    ['with a password that others can read', (p: string) => chmodSync(`${p}/pass`, 0o644), /pass.*chmod/],
    ['without a key', (p: string) => renameSync(`${p}/tls.key`, `${p}/gone`), /tls\.key: cannot be read/],
  ])('%s: one line with the remedy', async (_, spoil, message) => {
    const { code, lines } = await attempt(spoil)
    expect(code).toBe(100)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatch(message)
  })

  test('on a port in use, with a bad cipher list, with contradictions', async () => {
    const other = await backEnd(new BackEnd(() => {}))
    const inUse = await attempt(() => {}, '', { listen: `127.0.0.1:${other.port}` })
    expect(inUse.code).toBe(111)
    expect(inUse.lines.join()).toMatch(/is in use: stop the other server or change sslwrap\.listener\[0\]\.listen/)
    const cipher = await attempt(() => {}, 'ciphers = "NONSENSE"')
    expect(cipher.code).toBe(100)
    expect(cipher.lines.join()).toMatch(/cipher list cannot be used/)
    const contradictions = await attempt(() => {}, 'client_certificate = "required"', { tls: 'old', protocol: 'smtp' })
    expect(contradictions.code).toBe(100)
    expect(contradictions.lines).toHaveLength(3)
  })

  test('but with a self-made certificate if there is none', async () => {
    const server = await backEnd(popupLike())
    const directory = temporaryDirectory()
    stops.push(directory.remove)
    const { path } = directory
    writeFileSync(`${path}/pass`, SHARED_PASSWORD, { mode: 0o600 })
    writeFileSync(
      `${path}/a.toml`,
      [
        'configured = true',
        `[popup]\nssl_hack_pass = "${path}/pass"`,
        `[sslwrap]\nuser = "64321"\nworkers = 1\nhostname = "new.example.org"\ncert = "${path}/k/tls.crt"\nkey = "${path}/k/tls.key"`,
        `[[sslwrap.listener]]\nlisten = "127.0.0.1:0"\nbackend = "127.0.0.1:${server.port}"`,
      ].join('\n'),
    )
    const { Program } = await import('../../harness/processes/program.ts')
    const program = new Program('sslwrap', sslwrapCommand('--config', `${path}/a.toml`))
    stops.push(() => program.stop())
    const port = /:(\d+)$/.exec(await program.waitForLine(/ready/))?.[1]
    const socket = client(Number(port))
    await talk(socket).expect(/^\+OK/)
    expect(socket.getPeerX509Certificate()?.subjectAltName).toBe('DNS:new.example.org')
  })
})
