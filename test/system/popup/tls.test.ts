import { readdirSync, writeFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { connect, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { eventually } from '../../harness/eventually.ts'
import { childrenOf, MESSAGE, PASS, PopupClient, type PopupStack, startPopup } from '../../harness/pop3/popup-stack.ts'
import { internetSocketsOf } from '../../harness/processes/process-status.ts'

describe('popup with its own TLS', () => {
  let running: PopupStack
  beforeAll(async () => {
    const { cert, key } = makeSelfSigned({ names: ['mx.example.org'], now: Date.now() })
    running = await startPopup(stack => ({
      tls_listen: ['127.0.0.1:0'],
      stls_cert: stack.secret('tls.crt', cert),
      stls_key: stack.secret('tls.key', key),
      max_connections: 40,
      max_per_address: 0,
      max_per_login: 40,
    }))
  })
  const sockets: TLSSocket[] = []
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.destroy()
    running.closeClients()
  })
  afterAll(() => running.stop())

  const port = (): number => running.stack.port('popup', 0, 'tls_listen')

  function dial(session?: Buffer): TLSSocket {
    const socket = connect({ port: port(), host: '127.0.0.1', rejectUnauthorized: false, session })
    sockets.push(socket)
    return socket
  }

  const connectionsOf = (word: string): number =>
    childrenOf(running.stack.program('popup').pid, word)
      .flatMap(pid => internetSocketsOf(pid))
      .filter(({ state }) => state === 'connected').length

  test('greets after the handshake, logs in, and announces a login over TLS', async () => {
    const client = new PopupClient(dial())
    await client.expect(/^\+OK </)
    client.say('CAPA')
    await client.expect(/^\+OK/)
    expect(await client.expectLinesToDot()).not.toContain('STLS')
    await client.ask('STLS', /^-ERR/)
    await client.ask('USER ann', /^\+OK $/)
    await client.ask(PASS, /^\+OK/)
    await client.ask('STAT', /^\+OK 1 /)
    expect(await running.authd.event('ann')).toMatchObject({ tls: true, ip: '127.0.0.1' })
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([1, 0])
    await client.quit()
    await eventually('closed', () => connectionsOf('--login') === 0)
  })

  test('pipelined sessions, cut at every place, lose nothing', async () => {
    const octets = MESSAGE.replaceAll('\n', '\r\n').length
    const text = `USER bob\r\n${PASS}\r\nSTAT\r\nRETR 1\r\nNOOP\r\nQUIT\r\n`
    const message = `+OK \r\n${MESSAGE.replaceAll('\n', '\r\n')}.\r\n`
    const expected = `+OK \r\n+OK \r\n+OK 2 ${2 * octets}\r\n${message}+OK \r\n+OK \r\n`
    const wrong: string[] = []
    let next = 0
    const client = async () => {
      while (next < 400) {
        const number = next++
        const socket = dial()
        let received = ''
        socket.setEncoding('latin1').on('data', (chunk: string) => {
          received += chunk
        })
        const ended = new Promise<void>(resolve => socket.on('close', () => resolve()).on('error', () => {}))
        const cut = number % text.length
        socket.write(text.slice(0, cut), 'latin1')
        for (let turn = 0; turn < number % 7; turn += 1) await setImmediate()
        socket.write(text.slice(cut), 'latin1')
        await ended
        if (received.replace(/^\+OK <[^>]*>\r\n/, '') !== expected) wrong.push(`${number}: ${JSON.stringify(received)}`)
      }
    }
    await Promise.all(Array.from({ length: 16 }, client))
    expect(wrong).toEqual([])
  }, 60_000)

  test('a client that disconnects directly after QUIT has its messages deleted', async () => {
    const drop = running.stack.account('leaver', [MESSAGE, MESSAGE, MESSAGE])
    const socket = dial()
    const client = new PopupClient(socket)
    await client.expect(/^\+OK </)
    await client.ask('USER leaver', /^\+OK/)
    await client.ask(PASS, /^\+OK/)
    socket.write('DELE 1\r\nDELE 2\r\n')
    socket.write('QUIT\r\n', () => socket.destroy())
    await eventually('two messages are deleted', () => {
      const left = ['new', 'cur'].flatMap(folder => readdirSync(`${drop.maildir}/${folder}`))
      return left.length === 1
    })
  })

  test('resumes a session, and sends one ticket after a full handshake', async () => {
    const tickets: Buffer[] = []
    const first = dial()
    first.on('session', ticket => tickets.push(ticket))
    const client = new PopupClient(first)
    await client.expect(/^\+OK </)
    await client.quit()
    expect(tickets).toHaveLength(1)
    const second = dial(tickets[0])
    const again = new PopupClient(second)
    await again.expect(/^\+OK </)
    expect(second.isSessionReused()).toBe(true)
    await again.quit()
  })

  test('clients that never finish the handshake lose their places to others', async () => {
    const silent = Array.from({ length: 60 }, () => connectTcp({ port: port(), host: '127.0.0.1' }))
    for (const socket of silent) socket.on('error', () => {})
    try {
      await eventually('every place is taken', () => connectionsOf('--login') >= 40)
      const client = new PopupClient(dial())
      await client.expect(/^\+OK </)
      await client.quit()
    } finally {
      for (const socket of silent) socket.destroy()
    }
    await eventually('closed', () => connectionsOf('--login') === 0)
  })

  test('a client without TLS is closed, and the log names the remedy', async () => {
    const plain = connectTcp({ port: port(), host: '127.0.0.1' })
    plain.on('error', () => {})
    let received = ''
    plain.on('data', chunk => {
      received += String(chunk)
    })
    const closed = new Promise(resolve => plain.on('close', resolve))
    plain.write('USER ann\r\n')
    await closed
    expect(received).toBe('')
    await eventually('the fault is logged', () =>
      running.stack
        .log('popup')
        .find(({ fields }) => fields['event'] === 'tls_failed' && fields['reason'] === 'the client does not speak TLS'),
    )
  })

  test('a client with old TLS only is closed, and the log names the remedy once a day', async () => {
    const failures = () =>
      running.stack
        .log('popup')
        .filter(({ fields }) => fields['event'] === 'tls_failed' && fields['reason'] === 'unsupported protocol')
    for (let count = 1; count <= 2; count += 1) {
      const old = connect({
        ...{ port: port(), host: '127.0.0.1', rejectUnauthorized: false },
        ...{ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' },
      }).on('error', () => {})
      sockets.push(old)
      await eventually('the log names the failure', () => failures().length === count)
      expect(old.authorized).toBe(false)
    }
    expect(failures().map(({ fields }) => /tls = "old".*sslwrap\.old_tls_nets/.test(fields['remedy'] ?? ''))).toEqual([
      true,
      false,
    ])
  })

  test('uses another certificate when its files change', async () => {
    const { cert, key } = makeSelfSigned({ names: ['other.example.org'], now: Date.now() })
    const { directory } = running.stack
    writeFileSync(`${directory}/tls.crt`, cert)
    writeFileSync(`${directory}/tls.key`, key)
    await eventually(
      'the new certificate is shown',
      async () => {
        const socket = dial()
        const client = new PopupClient(socket)
        await client.expect(/^\+OK </)
        const { subject } = socket.getPeerCertificate()
        await client.quit()
        return subject.CN === 'other.example.org'
      },
      30_000,
    )
  })
})
