import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { connect } from 'node:tls'
import { afterEach, expect, test } from 'vitest'
import { type ProxyHeader, parseProxyHeader } from '../../src/wire/preamble.ts'
import { eventually } from '../harness/eventually.ts'
import {
  BackEnd,
  GREETING,
  makeCertificate,
  popupLike,
  SHARED_PASSWORD,
  sslwrapCommand,
  startingSslwrap,
} from '../harness/pop3/sslwrap.ts'
import { Conversation } from '../harness/processes/conversation.ts'
import { Program, run } from '../harness/processes/program.ts'
import { command, DEBIAN_PYTHON, describeWith, PYTHON, pathOf, ROOT } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const stops: (() => unknown)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop()
})
const { start, backEnd } = startingSslwrap(stops)
function directory(): string {
  const made = temporaryDirectory()
  stops.push(made.remove)
  return made.path
}
function program(name: string, words: readonly string[], env: Record<string, string> = {}): Program {
  const started = new Program(name, words, { env })
  stops.push(() => started.stop())
  return started
}
function tlsConversation(port: number): Conversation {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
  socket.on('error', () => {})
  stops.push(() => socket.destroy())
  return new Conversation('client', socket)
}
/** A port that is free now, for programs that cannot choose one themselves. */
async function freePort(): Promise<number> {
  const probe = await new BackEnd(() => {}).listen()
  probe.close()
  return probe.port
}

/** A back end that first reads a PROXY header of either version, and then sends a greeting. */
function proxied(headers: ProxyHeader[]): BackEnd {
  const done = new WeakSet()
  return new BackEnd(
    () => {},
    (_, { socket, text }) => {
      if (done.has(socket)) return
      const answer = parseProxyHeader(Buffer.from(text, 'latin1'))
      if (answer.kind === 'more') return
      done.add(socket)
      if (answer.kind === 'done') headers.push(answer.header)
      socket.write(answer.kind === 'done' ? '+OK ready\r\n' : `-ERR ${answer.reason}\r\n`)
    },
  )
}

describeWith([command('openssl')], 'openssl s_client', () => {
  test.each(['-tls1_3', '-tls1_2'])('%s: a whole session that ends with close_notify', async version => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [{ backend: `127.0.0.1:${server.port}` }] })
    const client = await run(
      [
        'openssl',
        's_client',
        '-connect',
        `127.0.0.1:${sslwrap.port}`,
        version,
        '-crlf',
        '-alpn',
        'pop3',
        '-ign_eof',
        '-servername',
        'mx.example.org',
      ],
      { input: 'QUIT\n' },
    )
    const output = client.lines.join('\n')
    expect(output).toContain(GREETING)
    expect(output).toContain('+OK bye')
    expect(output).toContain('ALPN protocol: pop3')
    expect(output).toContain('Compression: NONE')
    // An attacker can replay early data.
    if (version === '-tls1_3') expect(output).toContain('Max Early Data: 0')
    expect(output).not.toMatch(/unexpected eof|:error:/)
    expect(client.ending?.code).toBe(0)
  })
})

describeWith([command('curl')], 'curl', () => {
  test('pop3s', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [{ backend: `127.0.0.1:${server.port}` }] })
    const url = `pop3s://127.0.0.1:${sslwrap.port}/`
    const client = await run(['curl', '--silent', '--show-error', '--insecure', '--user', 'ann:x', url])
    expect(client.lines).toEqual(['1 120'])
    expect(client.ending?.code).toBe(0)
  })
})

/**
 * Reads until the end of the input, with or without close_notify, and then sends more. It uses
 * OpenSSL directly, because Node.js cannot do this.
 */
const SENDS_AFTER_END = `
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client = context.wrap_socket(raw, suppress_ragged_eofs=False)
while True:
    said = client.recv(100)
    sys.stdout.write(said.decode())
    if not said: break
client.sendall(b"still there\\r\\n")
client.unwrap()
`

describeWith([DEBIAN_PYTHON], 'the ssl module of Python', () => {
  test("after the server's close_notify the client can still send data", async () => {
    const server = await backEnd(new BackEnd(socket => socket.end('+OK going\r\n')))
    const sslwrap = await start({ listeners: [{ backend: `127.0.0.1:${server.port}`, preamble: 'none' }] })
    const client = await run([PYTHON, '-c', SENDS_AFTER_END, String(sslwrap.port)])
    expect(client.lines).toEqual(['+OK going'])
    await eventually('the end reaches the server', () => server.received[0]?.ended)
    expect(server.received[0]?.text).toBe('still there\r\n')
  })
})

describeWith([command('sslscan')], 'sslscan', () => {
  test('finds no obsolete protocol and no weak cipher', async () => {
    const server = await backEnd(popupLike())
    const sslwrap = await start({ listeners: [{ backend: `127.0.0.1:${server.port}` }] })
    const { lines } = await run(['sslscan', '--no-colour', '--show-certificate', `127.0.0.1:${sslwrap.port}`])
    const report = lines.join('\n')
    for (const version of ['SSLv2', 'SSLv3', 'TLSv1.0', 'TLSv1.1'])
      expect(report).toMatch(new RegExp(`^${version}\\s+disabled$`, 'm'))
    for (const version of ['TLSv1.2', 'TLSv1.3']) expect(report).toMatch(new RegExp(`^${version}\\s+enabled$`, 'm'))
    expect(report).toMatch(/Session renegotiation not supported|Secure session renegotiation supported/)
    expect(report).not.toMatch(/^TLS\S+ vulnerable/m)
    expect(report).not.toMatch(/ffdhe|secp192|secp224/)
    const ciphers = [...report.matchAll(/^(?:Preferred|Accepted)\s+(\S+)\s+(\d+) bits\s+(\S+)/gm)]
    expect(ciphers.length).toBeGreaterThanOrEqual(5)
    for (const [, version, bits, cipher] of ciphers) {
      expect(['TLSv1.2', 'TLSv1.3']).toContain(version)
      expect(Number(bits)).toBeGreaterThanOrEqual(128)
      expect(cipher).toMatch(/^(TLS_(AES|CHACHA20)_|ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM|CHACHA20))/)
    }
  })
})

describeWith([command('haproxy')], 'haproxy', () => {
  test('accepts the PROXY headers of sslwrap, version 1 and version 2', async () => {
    const [port, secret] = [await freePort(), directory()]
    const server = await backEnd(popupLike())
    writeFileSync(
      `${secret}/haproxy.cfg`,
      `${[
        'global\n  maxconn 100',
        'defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s',
        `frontend f\n  bind 127.0.0.1:${port} accept-proxy\n  tcp-request content set-var(txn.sni) fc_pp_authority\n  default_backend b`,
        // haproxy passes the source address that it read to the server in the next header.
        `backend b\n  server s 127.0.0.1:${server.port} send-proxy`,
      ].join('\n')}\n`,
    )
    const haproxy = program('haproxy', [pathOf('haproxy') ?? 'haproxy', '-db', '-f', `${secret}/haproxy.cfg`])
    await haproxy.waitFor('listening', () => haproxy.ending === undefined && isListening(port))
    const sslwrap = await start({
      listeners: ['proxy-v1', 'proxy-v2'].map(preamble => ({ backend: `127.0.0.1:${port}`, preamble })),
    })
    for (const own of sslwrap.ports) {
      const socket = connect({ host: '127.0.0.1', port: own, rejectUnauthorized: false, servername: 'pop.example.org' })
      stops.push(() => socket.destroy())
      await new Conversation('client', socket).expect(/^\+OK/)
      const [line] = await eventually(
        'the header of haproxy',
        () => /^.+(?=\r\n)/.exec(server.received.at(-1)?.text ?? '') ?? false,
      )
      expect(line).toBe(`PROXY TCP4 127.0.0.1 127.0.0.1 ${socket.localPort} ${own}`)
    }
  })

  test("in front of a server: the server reads haproxy's headers with TLS fields", async () => {
    const [v1, v2, path] = [await freePort(), await freePort(), directory()]
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    writeFileSync(`${path}/both.pem`, readFileSync(`${path}/tls.crt`, 'utf8') + readFileSync(`${path}/tls.key`, 'utf8'))
    const headers: ProxyHeader[] = []
    const server = await backEnd(proxied(headers))
    const bind = (port: number) => `  bind 127.0.0.1:${port} ssl crt ${path}/both.pem alpn pop3`
    const to = (options: string) => `  server s 127.0.0.1:${server.port} ${options}`
    writeFileSync(
      `${path}/haproxy.cfg`,
      `${[
        'global\n  maxconn 100',
        'defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s',
        `listen one\n${bind(v1)}\n${to('send-proxy')}`,
        `listen two\n${bind(v2)}\n${to('send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c')}`,
      ].join('\n')}\n`,
    )
    const haproxy = program('haproxy', [pathOf('haproxy') ?? 'haproxy', '-db', '-f', `${path}/haproxy.cfg`])
    await haproxy.waitFor('listening', () => isListening(v1) && isListening(v2))
    for (const port of [v1, v2]) {
      const socket = connect({
        host: '127.0.0.1',
        port,
        rejectUnauthorized: false,
        servername: 'pop.example.org',
        ALPNProtocols: ['pop3'],
      })
      stops.push(() => socket.destroy())
      await new Conversation('client', socket).expect(/^\+OK ready$/)
      const header = headers.at(-1)
      if (header?.kind !== 'proxied') throw new Error('not proxied')
      expect(header.source).toEqual({ ip: '127.0.0.1', port: socket.localPort })
      expect(header.destination).toEqual({ ip: '127.0.0.1', port })
      if (port === v2)
        expect(header.fields).toMatchObject({
          authority: 'pop.example.org',
          tls: { version: 'TLSv1.3', verified: false },
        })
    }
  })
})

describeWith([command('stunnel4')], 'stunnel', () => {
  test('in front of a server with PROXY version 1', async () => {
    const [port, path] = [await freePort(), directory()]
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    const headers: ProxyHeader[] = []
    const server = await backEnd(proxied(headers))
    const service = `[p]\naccept = 127.0.0.1:${port}\nconnect = 127.0.0.1:${server.port}\nprotocol = proxy`
    writeFileSync(
      `${path}/stunnel.conf`,
      `foreground = yes\npid =\ncert = ${path}/tls.crt\nkey = ${path}/tls.key\n${service}\n`,
    )
    const stunnel = program('stunnel', [pathOf('stunnel4') ?? 'stunnel4', `${path}/stunnel.conf`])
    await stunnel.waitFor('listening', () => isListening(port))
    await tlsConversation(port).expect(/^\+OK ready$/)
    expect(headers[0]).toMatchObject({
      kind: 'proxied',
      version: 1,
      source: { ip: '127.0.0.1' },
      destination: { port },
    })
  })
})

describeWith([command('tcpserver', 'ucspi-tcp'), ROOT], 'the command line of the original', () => {
  test('under tcpserver, in front of a program; the program gets the address of the client and the TLS version', async () => {
    const [port, path] = [await freePort(), directory()]
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    writeFileSync(
      `${path}/pop`,
      '#!/bin/sh\nprintf "+OK $TCPREMOTEIP tls=$AUTHRELAY_TLS $SSL_PROTOCOL $PROTO uid=$(id -u)\\r\\n"\nread line\nprintf "+OK $line\\r\\n"\ncat >/dev/null\nprintf "+OK end\\r\\n"\n',
      { mode: 0o755 },
    )
    const options = ['-cert', `${path}/tls.crt`, '-key', `${path}/tls.key`]
    for (const more of [[], ['-user', '64321']]) {
      const words = ['-exec', '/bin/sh', `${path}/pop`]
      const server = program('tcpserver', [
        pathOf('tcpserver') ?? '',
        '-H',
        '-R',
        '127.0.0.1',
        String(port),
        ...sslwrapCommand(...options, ...more, ...words),
      ])
      await server.waitFor('listening', () => isListening(port))
      const socket = connect({
        socket: connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true }),
        rejectUnauthorized: false,
      })
      const pop = new Conversation('client', socket)
      await pop.expect(
        more.length === 0 ? /^\+OK 127\.0\.0\.1 tls=1 TLSv1\.3 TCP uid=0$/ : /^\+OK 127\.0\.0\.1 tls=1 {2}TCP uid=0$/,
      )
      pop.write('QUIT\n')
      await pop.expect(/^\+OK QUIT/)
      socket.end()
      await pop.expect(/^\+OK end$/)
      await pop.expectEnd()
      await server.stop()
    }
  })

  /** A tcpserver with sslwrap, which starts the program before it drops root. */
  async function early(port: number, path: string, command: readonly string[]): Promise<Program> {
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    const options = ['-cert', `${path}/tls.crt`, '-key', `${path}/tls.key`, '-user', '64321', '-exec', ...command]
    const tcpserver = [pathOf('tcpserver') ?? '', '-H', '-R', '127.0.0.1', String(port)]
    const server = program('tcpserver', [...tcpserver, ...sslwrapCommand(...options)])
    await server.waitFor('listening', () => isListening(port))
    return server
  }

  test('a program that was started before a handshake that fails ends with the client', async () => {
    const [port, path] = [await freePort(), directory()]
    await early(port, path, ['/bin/sh', '-c', `cat >/dev/null; echo ended >${path}/state`])
    const plain = connectTcp({ port, host: '127.0.0.1' })
    plain.on('error', () => {})
    plain.write('USER ann\r\n')
    stops.push(() => plain.destroy())
    expect(await eventually('the end of the program', () => existsSync(`${path}/state`) || undefined)).toBe(true)
  })

  test('a program that cannot be started before the handshake is a failure after it', async () => {
    const [port, path] = [await freePort(), directory()]
    const server = await early(port, path, ['/nonexistent/pop3d'])
    await tlsConversation(port).expect(/^-ERR \[SYS\/TEMP\] service unavailable$/)
    await server.waitForLine(/event=upstream_failed .*cannot run/)
    expect(server.lines.join('\n')).not.toMatch(/Unhandled|node:internal/)
  })

  test('under tcpserver, in front of a port, with the SSL dialogue', async () => {
    const [port, path] = [await freePort(), directory()]
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    writeFileSync(`${path}/pass`, SHARED_PASSWORD, { mode: 0o600 })
    const server = await backEnd(popupLike())
    const words = sslwrapCommand('-cert', `${path}/tls.crt`, '-key', `${path}/tls.key`, '-port', String(server.port))
    const inetd = program('tcpserver', [pathOf('tcpserver') ?? '', '-H', '-R', '127.0.0.1', String(port), ...words], {
      SSL_HACK_PASS: `${path}/pass`,
    })
    await inetd.waitFor('listening', () => isListening(port))
    const pop = tlsConversation(port)
    expect((await pop.expect(/^\+OK/)).text).toBe(GREETING)
    await pop.ask('QUIT', /^\+OK bye$/)
    await pop.expectEnd()
    expect(server.received[0]?.text).toBe(`SSL 127.0.0.1:${SHARED_PASSWORD}\r\nQUIT\r\n`)
  })

  test('stand-alone', async () => {
    const [port, path] = [await freePort(), directory()]
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    writeFileSync(`${path}/pass`, SHARED_PASSWORD, { mode: 0o600 })
    const server = await backEnd(popupLike())
    const words = [
      '-cert',
      `${path}/tls.crt`,
      '-key',
      `${path}/tls.key`,
      '-user',
      '64321',
      '-port',
      String(server.port),
      '-accept',
      String(port),
    ]
    const sslwrap = program('sslwrap', sslwrapCommand(...words), { SSL_HACK_PASS: `${path}/pass` })
    await sslwrap.waitForLine(/ready/)
    const pop = tlsConversation(port)
    await pop.expect(/^\+OK/)
    await pop.ask('QUIT', /^\+OK bye$/)
  })

  test('standard input is not a connection: the program refuses to run', async () => {
    const path = directory()
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    const { ending, lines } = await run(
      sslwrapCommand('-cert', `${path}/tls.crt`, '-key', `${path}/tls.key`, '-exec', 'true'),
    )
    expect(ending?.code).toBe(100)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatch(/run this under tcpserver/)
  })
})

/**
 * True if a socket listens there. Reads the kernel's table, so that the server does not see a
 * connection.
 */
function isListening(port: number): boolean {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  return new RegExp(`: [0-9A-F]{8}:${hex} 00000000:0000 0A`).test(readFileSync('/proc/net/tcp', 'utf8'))
}
