import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { formatBanner } from '../../../src/auth-relay/demo/prepare-demo.ts'
import { DemoSession, refusalOf } from '../../../src/auth-relay/demo/smtp-session.ts'
import { createLog } from '../../../src/base/log.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

describe('the demo’s SMTP server accepts', () => {
  const server = { domain: 'demo.example', user: 'demo' }
  const code = (address: string, relayClient?: string) => refusalOf(address, { ...server, relayClient })?.slice(0, 3)

  test('mail for its one mailbox from every sender', () => {
    expect(code('demo@demo.example')).toBeUndefined()
    expect(code('DEMO@Demo.Example')).toBeUndefined()
  })
  test('no mail for other names of its domain', () => expect(code('ann@demo.example', '')).toBe('550'))
  test('no mail for others without RELAYCLIENT', () => {
    expect(code('ann@example.org')).toBe('553')
    expect(code('ann')).toBe('553')
    expect(code('demo@demo.example@example.org')).toBe('553')
    expect(code('demo@demo.example.org')).toBe('553')
  })
  test('mail for others with RELAYCLIENT, even empty', () => expect(code('ann@example.org', '')).toBeUndefined())
})

describe('a session of the demo’s SMTP server', () => {
  const directory = temporaryDirectory()
  afterAll(() => directory.remove())

  /**
   * Runs a session. `piece`: octets that the client sends at a time; `delivered`: the files in new.
   */
  function converse(
    input: string,
    { relayClient, piece = input.length }: { relayClient?: string; piece?: number } = {},
  ) {
    const maildir = mkdtempSync(`${directory.path}/maildir-`)
    for (const folder of ['tmp', 'new']) mkdirSync(`${maildir}/${folder}`)
    let serverText = ''
    let isClosed = false
    const lines: string[] = []
    const options = { domain: 'demo.example', user: 'demo', maildir, relayClient, remoteIp: '192.0.2.7' }
    const session = new DemoSession(options, createLog('demo-smtpd', { write: line => lines.push(line) }), {
      write: octets => {
        serverText += octets.toString('latin1')
      },
      close: () => {
        isClosed = true
      },
    })
    session.start()
    for (let at = 0; at < input.length; at += piece) session.push(Buffer.from(input.slice(at, at + piece), 'latin1'))
    const delivered = readdirSync(`${maildir}/new`).map(name => readFileSync(`${maildir}/new/${name}`, 'latin1'))
    expect(readdirSync(`${maildir}/tmp`)).toEqual([])
    const replies = serverText.split('\r\n')
    expect(replies.pop()).toBe('')
    return { replies, codes: replies.map(reply => reply.slice(0, 3)), isClosed, delivered, lines }
  }
  const HELLO = 'EHLO client.example\r\n'
  const MAIL = `${HELLO}MAIL FROM:<ann@client.example>\r\n`

  test.each([1, 7, 10_000])('a message in pieces of %i octets: delivered with its trace, dots and line ends', piece => {
    const text = `${MAIL}RCPT TO:<Demo@demo.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\nend\r\n.\r\nQUIT\r\n`
    const { codes, delivered, isClosed, lines } = converse(text, { relayClient: '', piece })
    expect(codes).toEqual(['220', '250', '250', '250', '250', '250', '250', '250', '354', '250', '221'])
    expect(isClosed).toBe(true)
    expect(delivered).toHaveLength(1)
    expect(delivered[0]).toMatch(
      /^Return-Path: <ann@client\.example>\nDelivered-To: demo@demo\.example\nReceived: from client\.example \(\[192\.0\.2\.7\]\) by demo\.example with SMTP; .*\+0000\nSubject: x\n\n\.dot\nend\n$/,
    )
    expect(lines.filter(line => line.includes('event=message_discarded'))).toHaveLength(1)
  })

  test('the next message starts a new transaction', () => {
    const message = 'RCPT TO:<demo@demo.example>\r\nDATA\r\n.\r\n'
    const { codes, delivered } = converse(`${MAIL}${message}${message}RSET\r\nMAIL FROM:<>\r\n${message}`)
    expect(codes.slice(5)).toEqual(['250', '250', '354', '250', '503', '503', '500', '250', '250', '250', '354', '250'])
    expect(delivered.map(text => text.split('\n')[0])).toContain('Return-Path: <>')
    expect(delivered).toHaveLength(2)
  })

  test.each([
    [
      'a transaction in the wrong order',
      'MAIL FROM:<a@b.example>\r\nRCPT TO:<demo@demo.example>\r\nDATA\r\n',
      ['503', '503', '503'],
    ],
    [
      'a command that the demo does not support',
      'STARTTLS\r\nAUTH PLAIN x\r\nVRFY demo\r\nNOOP\r\nHELP\r\n',
      ['502', '502', '252', '250', '500'],
    ],
    ['a command without its argument', 'HELO\r\nEHLO\r\nMAIL\r\nRCPT TO:\r\n', ['501', '501', '501', '501']],
    ['a command with NUL', 'NO\0OP\r\n', ['500']],
    ['a line that is too long', `${'x'.repeat(5_000)}\r\nNOOP\r\n`, ['500', '250']],
  ])('%s is refused, and the session continues', (_name, input, codes) => {
    const { codes: received, isClosed } = converse(input)
    expect(received).toEqual(['220', ...codes])
    expect(isClosed).toBe(false)
  })

  test.each([
    ['a TLS handshake', '\x16\x03\x01', '554'],
    ['BDAT, because its octets are not commands', `${MAIL}BDAT 4\r\nQUIT`, '502'],
    ['a client with thirty unknown commands', 'x\r\n'.repeat(30), '421'],
    ['content with a bare line end', `${MAIL}RCPT TO:<demo@demo.example>\r\nDATA\r\na\nb\r\n.\r\n`, '550'],
  ])('the server closes after %s', (_name, input, code) => {
    const { codes, isClosed, delivered } = converse(input)
    expect(codes.at(-1)).toBe(code)
    expect(isClosed).toBe(true)
    expect(delivered).toEqual([])
  })

  test('a message that is too large is read to its end and refused', () => {
    const line = `${'x'.repeat(998)}\r\n`
    const text = `${MAIL}RCPT TO:<demo@demo.example>\r\nDATA\r\n${line.repeat(11_000)}.\r\nNOOP\r\n`
    const { codes, delivered } = converse(text)
    expect(codes.slice(-3)).toEqual(['354', '552', '250'])
    expect(delivered).toEqual([])
  })
})

describe('the screen', () => {
  const demo = {
    config: '/home/ann/auth-relay/var/auth-relay.toml',
    ports: { pop3: 1110, pop3s: 1995, smtp: 1025, status: 8110 },
    user: 'demo',
    password: 'demo',
    domain: 'demo.example',
    separated: false,
    runtime: '/home/ann/auth-relay/var',
    dir: '/home/ann/auth-relay/var',
  }

  test('has commands whose paths are short below the working directory, and quoted where the shell needs it', () => {
    expect(formatBanner(demo, '/home/ann/auth-relay', '/nowhere/dist/auth-relay.js')).toContain(
      '\n   auth-relay show --config var/auth-relay.toml\n',
    )
    expect(formatBanner({ ...demo, config: "/tmp/it's/x.toml" }, '/home', '/nowhere/dist/x.js')).toContain(
      `--config '/tmp/it'\\''s/x.toml'`,
    )
  })
})
