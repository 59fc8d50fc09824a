import { describe, expect, it } from 'vitest'
import { DIALECTS, dialectNamed } from '../../../src/syslog/dialects.ts'
import { LoginRecognizer, type RecognizerOptions, type Verdict } from '../../../src/syslog/login-recognizer.ts'
import { LineSplitter } from '../../../src/wire/line-splitter.ts'
import { FORMS, LOGINS, NO_LOGINS } from './known-lines.ts'

const recognizer = (options: Partial<RecognizerOptions> = {}): LoginRecognizer =>
  new LoginRecognizer({ dialects: DIALECTS, imap: true, ...options })

const verdictOn = (line: string, options: Partial<RecognizerOptions> = {}): Verdict =>
  recognizer(options).recognize(line, 0)

const only = (name: string): Partial<RecognizerOptions> => ({ dialects: DIALECTS.filter(d => d.name === name) })

/** Endings and beginnings that turn a login line into none (spec/syslog.md §8). */
const SPOILERS: Readonly<Record<string, (line: string, message: string) => string>> = {
  'trailing CR': line => `${line}\r`,
  'trailing space': line => `${line} `,
  'trailing NUL': line => `${line}\0`,
  'leading space': line => ` ${line}`,
  'two leading spaces of the message': (line, message) => line.replace(message, () => `  ${message}`),
  'text before the message': (line, message) => line.replace(message, () => `x ${message}`),
  'text after the message': line => `${line} x`,
}

for (const [form, format] of Object.entries(FORMS)) {
  describe(`form ${form}`, () => {
    it.each(LOGINS)('$tag: $message', ({ dialect, tag, pid = '', message, grants }) => {
      const line = format(tag, pid, message)
      expect(verdictOn(line, only(dialect))).toMatchObject({
        verdict: 'grant',
        dialect,
        daemon: tag,
        ip: grants?.ip,
        login: grants?.login,
      })
      // With every dialect on, tags are shared; the same address must come out.
      expect(verdictOn(line)).toMatchObject({ verdict: 'grant', ip: grants?.ip, login: grants?.login })
    })

    it.each(LOGINS)('spoiled, $tag: $message', ({ tag, pid = '', message }) => {
      const line = format(tag, pid, message)
      for (const [name, spoil] of Object.entries(SPOILERS)) {
        // A site may add elements to Dovecot's line behind the ones that are read.
        if (name === 'text after the message' && message.includes(', mpid=')) continue
        expect(verdictOn(spoil(line, message)), name).toMatchObject({ verdict: 'ignore' })
      }
      expect(verdictOn(format(tag, pid, `${tag}[${pid}]: ${message}`)), 'doubled tag').toMatchObject({
        verdict: 'ignore',
      })
      for (const wrong of ['postfix/smtpd', 'sshd', `postfix/${tag}`, `${tag}x`, 'sendmail', '-', 'IPOP3D']) {
        expect(verdictOn(format(wrong, '1', message)), wrong).toMatchObject({ verdict: 'ignore' })
      }
    })

    it.each(NO_LOGINS)('opens nothing, $tag: $message', ({ tag, pid = '', message }) => {
      expect(verdictOn(format(tag, pid, message))).toMatchObject({ verdict: 'ignore' })
    })

    it.each(NO_LOGINS)('opens nothing with a login appended, $tag: $message', ({ dialect, tag, pid = '', message }) => {
      for (const login of LOGINS.filter(known => known.dialect === dialect)) {
        for (const between of [' ', '\t', '#012', '\\012', '^J', '\r', '\0', ', ']) {
          const line = format(tag, pid, `${message}${between}${login.message}`)
          expect(verdictOn(line)).toMatchObject({ verdict: 'ignore' })
        }
      }
    })
  })
}

describe('addresses', () => {
  const line = (address: string): string => `Mar  5 10:11:12 mx ipop3d[1]: Login user=ann host=[${address}] nmsgs=1/1`

  // Whether such an address may be granted is decided where grants are; here it must only be read right.
  it.each([
    ['0.0.0.0', '0.0.0.0'],
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '::'],
    ['224.0.0.1', '224.0.0.1'],
    ['ff02::1', 'ff02::1'],
    ['::ffff:203.0.113.9', '203.0.113.9'],
    ['2001:DB8::7', '2001:db8::7'],
    ['2001:db8:0:0:0:0:0:7', '2001:db8::7'],
  ])('%s is read as %s', (text, ip) => {
    expect(verdictOn(line(text))).toMatchObject({ verdict: 'grant', ip })
  })

  it.each([
    'fe80::1%eth0',
    '1.2.3',
    '01.2.3.4',
    '256.1.1.1',
    '1.2.3.4.5',
    '1:2',
    ':::1',
    '0x1.2.3.4',
    '..',
    '1.2.3.4 ',
  ])('%s is no address', text => {
    expect(verdictOn(line(text))).toMatchObject({ verdict: 'ignore' })
  })
})

describe('what else arrives', () => {
  it.each([
    ['', 'empty line'],
    ['Mar  5 10:11:12 mx last message repeated 3 times', 'repeat line'],
    [
      'Mar  5 10:11:12 mx ipop3d[1]: message repeated 2 times: [ Login user=a host=[192.0.2.7] nmsgs=1/1]',
      'repeat line',
    ],
    ['Login user=a host=[192.0.2.7] nmsgs=1/1', 'not a syslog line'],
    ['Mar  5 10:11:12 ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1', 'not a syslog line'],
    ['Mar  5 10:11:12 smtpd[1]: ipop3d: Login user=a host=[192.0.2.7] nmsgs=1/1', 'not a syslog line'],
    ['<192>Mar  5 10:11:12 mx ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1', 'priority above 191'],
    ['<22>1 2026-03-05T09:11:12Z mx - 1 - - Login user=a host=[192.0.2.7] nmsgs=1/1', 'no program name'],
    ['Mar  5 10:11:12 mx postfix/smtpd[1]: connect', "tag postfix/smtpd is no known daemon's"],
    [
      `Mar  5 10:11:12 mx ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1${' '.repeat(9000)}`,
      'longer than 8192 octets',
    ],
  ])('%j: %s', (line, reason) => {
    expect(verdictOn(line)).toMatchObject({ verdict: 'ignore', reason })
  })

  it('a broken tag is no tag', () => {
    const line = 'Jul  6 10:21:52 srv vpopmail[18917: vchkpw-pop3: (CRAM-MD5) login success user@my_domain:1.2.3.4'
    expect(verdictOn(line)).toMatchObject({ verdict: 'ignore', reason: 'not a syslog line' })
  })

  it('a leading directory of the tag is removed, one slash inside is part of it', () => {
    expect(verdictOn('Mar  5 10:11:12 mx /usr/sbin/ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1')).toMatchObject({
      verdict: 'grant',
      daemon: 'ipop3d',
    })
    expect(verdictOn('Mar  5 10:11:12 mx x/ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1')).toMatchObject({
      verdict: 'ignore',
    })
  })

  it('names the setting that is off', () => {
    const line = 'Mar  5 10:11:12 mx vpopmail[1]: vchkpw-pop3: (PLAIN) login success a@b:192.0.2.7'
    expect(verdictOn(line, only('ipop3d'))).toEqual({
      verdict: 'ignore',
      reason: 'tag vpopmail: check_daemon_vchkpw is off',
      tag: 'vpopmail',
    })
  })

  it('IMAP logins are believed only where asked for', () => {
    for (const { tag, pid = '', message, grants } of LOGINS) {
      const verdict = verdictOn(FORMS['A']?.(tag, pid, message) ?? '', { imap: false })
      expect(verdict.verdict, message).toBe(grants?.imap === true ? 'ignore' : 'grant')
    }
  })

  it('a name with octets that are not UTF-8 is no crash and drops no octet', () => {
    const octets = Buffer.concat([
      Buffer.from('Mar  5 10:11:12 mx ipop3d[1]: Login user='),
      Buffer.from([0xff, 0xc3]),
      Buffer.from(' host=[192.0.2.7] nmsgs=1/1\n'),
    ])
    const [line = ''] = new LineSplitter(8192).push(octets).lines
    expect(verdictOn(line)).toMatchObject({ verdict: 'grant', ip: '192.0.2.7', login: '\uFFFD\uFFFD' })
  })

  it('tags may be configured', () => {
    const options = { tags: { vchkpw: ['vpop'] } }
    const message = 'vchkpw-pop3: (PLAIN) login success a@b:192.0.2.7'
    expect(verdictOn(`Mar  5 10:11:12 mx vpop[1]: ${message}`, options)).toMatchObject({ verdict: 'grant' })
    expect(verdictOn(`Mar  5 10:11:12 mx vpopmail[1]: ${message}`, options)).toMatchObject({ verdict: 'ignore' })
  })

  it('dialects are found by name and by setting', () => {
    expect(dialectNamed('solid-pop3d')).toBe(dialectNamed('check_daemon_solid'))
    expect(dialectNamed('check_daemon_hacked_qmailpop3d')?.name).toBe('qmail-pop3d')
    expect(dialectNamed('postfix')).toBeUndefined()
    expect(new Set(DIALECTS.map(({ setting }) => setting)).size).toBe(DIALECTS.length)
  })
})

describe('syslog_hosts and max_lag', () => {
  const login = (host: string): string => `Mar  5 10:11:12 ${host} ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1`

  it('only listed hosts are believed', () => {
    const options = { hosts: ['pop1.example.org', '192.0.2.25'] }
    expect(verdictOn(login('POP1.example.org'), options)).toMatchObject({ verdict: 'grant' })
    expect(verdictOn(login('192.0.2.25'), options)).toMatchObject({ verdict: 'grant' })
    expect(verdictOn(login('pop2.example.org'), options)).toMatchObject({ reason: 'host is not in syslog_hosts' })
  })

  it('old lines are dropped if their stamp has a date', () => {
    const now = Date.parse('2026-03-05T10:00:00Z')
    const stamped = (stamp: string): string => `${stamp} mx ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1`
    const verdict = (stamp: string) => recognizer({ maxLag: 60_000 }).recognize(stamped(stamp), now)
    expect(verdict('2026-03-05T09:59:30.123456789Z')).toMatchObject({ verdict: 'grant' })
    expect(verdict('2026-03-05T10:58:00+01:00')).toMatchObject({ reason: 'stamp is older than max_lag' })
    expect(verdict('Mar  4 10:00:00')).toMatchObject({ verdict: 'grant' })
  })
})

describe('log files of Dovecot itself', () => {
  const message = 'user=<ann>, method=PLAIN, rip=203.0.113.6, lip=192.0.2.1, TLS'
  const lines = [
    `Mar 05 10:11:12 pop3-login: Info: Login: ${message}`,
    `2026-03-05 10:11:12 pop3-login: Info: Logged in: ${message}`,
    `dovecot: 2011-03-03 18:36:18 Info: pop3-login: Login: ${message}`,
    `Mar 05 10:11:12 Info: pop3-login: Login: ${message}`,
  ]

  it.each(lines)('%s', line => {
    expect(verdictOn(line, { ownFiles: true })).toMatchObject({ verdict: 'grant', ip: '203.0.113.6', tls: true })
    expect(verdictOn(line), 'not believed from syslog').toMatchObject({ verdict: 'ignore' })
    expect(verdictOn(line, { ownFiles: true, dialects: [] })).toMatchObject({ verdict: 'ignore' })
  })

  it.each([
    `Mar 05 10:11:12 auth: Info: pop3-login: Login: ${message}`,
    `Mar 05 10:11:12 pop3-login: Error: Login: ${message}`,
    `Mar 05 10:11:12 pop3-login: Info: Disconnected: Login: ${message}`,
  ])('opens nothing: %s', line => {
    expect(verdictOn(line, { ownFiles: true })).toMatchObject({ verdict: 'ignore' })
  })
})

describe('two-line daemons', () => {
  const line = (message: string, pid = '7', tag = 'popa3d', host = 'mx'): string =>
    `Mar  5 10:11:12 ${host} ${tag}${pid === '' ? '' : `[${pid}]`}: ${message}`
  const session = line('Session from 203.0.113.9')
  const passed = line('Authentication passed for ann')

  it.each([
    ['popa3d', 'Session from 203.0.113.9', 'Authentication passed for ann', 'ann'],
    ['vm-pop3d', 'Connect from 203.0.113.9', "User 'ann' of 'example.org' logged in", 'ann@example.org'],
    ['solid-pop3d', 'connect from h.example.net (203.0.113.9)', 'user ann authenticated', 'ann'],
  ])('%s joins its lines by PID, once', (tag, first, second, login) => {
    const both = recognizer()
    expect(both.recognize(line(first, '7', tag), 0)).toMatchObject({ verdict: 'ignore' })
    expect(both.recognize(line(second, '8', tag), 0)).toMatchObject({ reason: 'login line without its session line' })
    expect(both.recognize(line(second, '7', tag), 1000)).toMatchObject({ verdict: 'grant', ip: '203.0.113.9', login })
    expect(both.recognize(line(second, '7', tag), 1001)).toMatchObject({ verdict: 'ignore' })
  })

  it('host and PID must be the same', () => {
    const both = recognizer()
    both.recognize(session, 0)
    expect(both.recognize(line('Authentication passed for ann', '7', 'popa3d', 'mx2'), 0).verdict).toBe('ignore')
    expect(both.recognize(line('Authentication passed for ann', ''), 0).verdict).toBe('ignore')
  })

  it('a failure, a new session or 120 s end the old one', () => {
    const both = recognizer()
    both.recognize(session, 0)
    both.recognize(line('Authentication failed for ann'), 0)
    expect(both.recognize(passed, 0).verdict).toBe('ignore')
    both.recognize(session, 0)
    both.recognize(line('Session from 203.0.113.10'), 0)
    expect(both.recognize(passed, 0)).toMatchObject({ ip: '203.0.113.10' })
    both.recognize(session, 0)
    both.recognize(line('Session from nowhere'), 0)
    expect(both.recognize(passed, 0).verdict).toBe('ignore')
    both.recognize(session, 0)
    expect(both.recognize(passed, 120_001).verdict).toBe('ignore')
    both.recognize(session, 1000)
    expect(both.recognize(passed, 999).verdict, 'the clock was set back').toBe('ignore')
  })

  it('remembers 4096 sessions and forgets the oldest', () => {
    const both = recognizer()
    for (let pid = 1; pid <= 4097; pid++) both.recognize(line('Session from 203.0.113.9', String(pid)), 0)
    expect(both.recognize(line('Authentication passed for ann', '1'), 0).verdict).toBe('ignore')
    expect(both.recognize(line('Authentication passed for ann', '2'), 0).verdict).toBe('grant')
  })
})
