import { describe, expect, it } from 'vitest'
import { DIALECTS, dialectNamed } from '../../../src/syslog/dialects.ts'
import { encodeUser } from '../../../src/syslog/login-line.ts'
import { LoginRecognizer, type RecognizerOptions, type Verdict } from '../../../src/syslog/login-recognizer.ts'
import { LineSplitter } from '../../../src/wire/lines.ts'
import { FORMS, LOGINS, NO_LOGINS } from './known-lines.ts'

const recognizer = (options: Partial<RecognizerOptions> = {}): LoginRecognizer =>
  new LoginRecognizer({ dialects: DIALECTS, imap: true, ...options })

const verdictOn = (line: string, options: Partial<RecognizerOptions> = {}): Verdict =>
  recognizer(options).recognize(line, 0)

const only = (name: string): Partial<RecognizerOptions> => ({ dialects: DIALECTS.filter(d => d.name === name) })

/** Endings and beginnings with which a login line is invalid (docs/spec/syslog.md §8). */
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
      // With every dialect on, dialects share tags; the address must be the same.
      expect(verdictOn(line)).toMatchObject({ verdict: 'grant', ip: grants?.ip, login: grants?.login })
    })

    it.each(LOGINS)('spoiled, $tag: $message', ({ tag, pid = '', message }) => {
      const line = format(tag, pid, message)
      for (const [name, spoil] of Object.entries(SPOILERS)) {
        // A site may add elements to Dovecot's line behind the elements that are read.
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

  // The grant policy decides about such an address; the recognizer must only read it correctly.
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
  ])('%s is not an address', text => {
    expect(verdictOn(line(text))).toMatchObject({ verdict: 'ignore' })
  })
})

describe('lines that are ignored, with the reason', () => {
  it.each([
    ['', 'empty line'],
    ['Mar  5 10:11:12 mx last message repeated 3 times', 'repeat line'],
    [
      'Mar  5 10:11:12 mx ipop3d[1]: message repeated 2 times: [ Login user=a host=[192.0.2.7] nmsgs=1/1]',
      'repeat line of no login',
    ],
    ['Login user=a host=[192.0.2.7] nmsgs=1/1', 'not a syslog line: no known time stamp'],
    [
      'Mar  5 10:11:12 ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1',
      'not a syslog line: no host name after the stamp',
    ],
    [
      'Mar  5 10:11:12 smtpd[1]: ipop3d: Login user=a host=[192.0.2.7] nmsgs=1/1',
      'not a syslog line: no host name after the stamp',
    ],
    [
      '<22>Mar  5 10:11:12 mx ipop3d Login user=a host=[192.0.2.7] nmsgs=1/1',
      'not a syslog line: no tag (NAME: or NAME[PID]:) after the host name',
    ],
    ['<22>1 2026-03-05T09:11:12Z mx', 'not a syslog line: no header of RFC 5424 after its stamp'],
    [
      'Mar 05 10:11:12 pop3-login: Info: Login: user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1',
      "Dovecot's own log file: only follow_files reads it",
    ],
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

  it('an invalid tag is not recognized', () => {
    const line = 'Jul  6 10:21:52 srv vpopmail[18917: vchkpw-pop3: (CRAM-MD5) login success user@my_domain:1.2.3.4'
    expect(verdictOn(line)).toMatchObject({
      verdict: 'ignore',
      reason: 'not a syslog line: no tag (NAME: or NAME[PID]:) after the host name',
      near: 'vpopmail[18917: vchkpw-pop3: (CRAM-MD5) ',
    })
  })

  it('a leading directory of the tag is removed, and one slash inside is part of it', () => {
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

  it('IMAP logins count only where a setting allows them', () => {
    for (const { tag, pid = '', message, grants } of LOGINS) {
      const verdict = verdictOn(FORMS['A']?.(tag, pid, message) ?? '', { imap: false })
      expect(verdict.verdict, message).toBe(grants?.imap === true ? 'ignore' : 'grant')
    }
  })

  it('a name with octets that are not UTF-8 causes no error and loses no octet', () => {
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

describe('syslog_hosts', () => {
  const login = (host: string): string => `Mar  5 10:11:12 ${host} ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1`

  it('only lines of listed hosts count', () => {
    const options = { hosts: ['pop1.example.org', '192.0.2.25'] }
    expect(verdictOn(login('POP1.example.org'), options)).toMatchObject({ verdict: 'grant' })
    expect(verdictOn(login('192.0.2.25'), options)).toMatchObject({ verdict: 'grant' })
    expect(verdictOn(login('pop2.example.org'), options)).toMatchObject({ reason: 'host is not in syslog_hosts' })
  })
})

describe('the time of a login', () => {
  const now = new Date(2026, 2, 5, 10, 0, 0).getTime()
  const login = 'Login user=a host=[192.0.2.7] nmsgs=1/1'
  const inForm: Readonly<Record<string, (at: Date) => string>> = {
    'RFC 3339': at => `${at.toISOString()} mx ipop3d[1]: ${login}`,
    'RFC 5424': at => `<22>1 ${at.toISOString()} mx ipop3d 1 - - ${login}`,
    'BSD, local time': at => `${bsd(at)} mx ipop3d[1]: ${login}`,
    'BSD with year and fraction': at => `${at.getFullYear()} ${bsd(at)}.000 mx ipop3d[1]: ${login}`,
  }
  const bsd = (at: Date): string =>
    `${at.toString().slice(4, 7)} ${String(at.getDate()).padStart(2)} ${at.toString().slice(16, 24)}`

  describe.each(Object.entries(inForm))('%s', (_, line) => {
    const verdict = (age: number, options: Partial<RecognizerOptions> = {}) =>
      recognizer({ maxAge: 1_800_000, ...options }).recognize(line(new Date(now - age)), now)

    it('comes from the stamp, in every kind of source', () => {
      for (const ownFiles of [false, true]) {
        expect(verdict(600_000, { ownFiles })).toMatchObject({ verdict: 'grant', at: now - 600_000, ahead: 0 })
        expect(verdict(1_799_000, { ownFiles })).toMatchObject({ verdict: 'grant' })
        expect(verdict(1_800_000, { ownFiles })).toMatchObject({ verdict: 'drop', because: 'expired' })
        expect(verdict(86_400_000, { ownFiles })).toMatchObject({ verdict: 'drop', because: 'expired' })
      }
    })

    it('is never later than now', () => {
      expect(verdict(-3_600_000)).toMatchObject({ verdict: 'grant', at: now, ahead: 3_600_000 })
    })
  })

  it('is the current time if RFC 5424 has no stamp; a line of a file without a time grants nothing', () => {
    const line = `<22>1 - mx ipop3d 1 - - ${login}`
    expect(recognizer().recognize(line, now)).toMatchObject({ verdict: 'grant', at: now })
    expect(recognizer({ ownFiles: true }).recognize(line, now)).toMatchObject({ verdict: 'drop', because: 'no_time' })
  })

  it.each(['2026-02-30T09:59:59Z', '2026-03-05T25:00:00Z', 'Feb 30 09:59:59', 'Foo  5 09:59:59'])(
    'is unknown for the stamp %s, so that the login grants nothing',
    stamp => {
      const verdict = recognizer().recognize(`${stamp} mx ipop3d[1]: ${login}`, now)
      expect(verdict).toMatchObject({ verdict: 'drop', because: 'no_time' })
    },
  )
})

describe('a login name that the daemon shortened', () => {
  /**
   * Known lines with another name; undefined if the dialect does not accept a line with a name of
   * that length.
   */
  const named = (known: (typeof LOGINS)[number], name: string): Verdict =>
    verdictOn(
      `Mar  5 10:11:12 mx ${known.tag}[1]: ${known.message.replaceAll(known.grants?.login ?? '', () => name)}`,
      only(known.dialect),
    )

  const plain = LOGINS.filter(({ message, grants }) => message.includes(grants?.login ?? '-'))
  it.each(plain)('grants nothing: $tag: $message', known => {
    const [, domain = ''] = known.grants?.login.split('@') ?? []
    const at = domain === '' ? '' : `@${domain}`
    const whole = (octets: number): string => `${'a'.repeat(octets - at.length)}${at}`
    const { longestLogin = 0 } = dialectNamed(known.dialect) ?? {}
    // The shortest name that can be shortened, and every longer one that fits a line.
    for (let octets = longestLogin; octets < longestLogin + 10; octets++) {
      expect(named(known, whole(octets)).verdict, `${octets} octets`).not.toBe('grant')
    }
    expect(named(known, whole(30)).verdict, 'whole').toBe('grant')
  })

  const dovecot = (name: string): Verdict =>
    verdictOn(
      `Mar  5 10:11:12 mx dovecot: pop3-login: Login: user=<${name}>, method=PLAIN, rip=203.0.113.6, lip=192.0.2.1, mpid=1`,
    )
  it('by Dovecot: three dots at 80 octets, or fewer if a character would be divided', () => {
    expect(dovecot(`${'a'.repeat(77)}...`)).toMatchObject({ verdict: 'drop', because: 'cut_name', ip: '203.0.113.6' })
    expect(dovecot(`${'a'.repeat(73)}ü...`)).toMatchObject({ verdict: 'drop', because: 'cut_name' })
    expect(dovecot(`${'ü'.repeat(38)}...`)).toMatchObject({ verdict: 'drop', because: 'cut_name' })
    expect(dovecot('a'.repeat(80))).toMatchObject({ verdict: 'grant' })
    expect(dovecot('etc...')).toMatchObject({ verdict: 'grant', login: 'etc...' })
  })

  const own = (name: string): Verdict =>
    verdictOn(`Mar  5 10:11:12 mx qmail-pop3d[1]: authrelay v=1 ev=login ip=203.0.113.6 tls=0 method=pass user=${name}`)
  it('by auth-relay: ~', () => {
    expect(own(encodeUser('a'.repeat(129)))).toMatchObject({ verdict: 'drop', because: 'cut_name' })
    expect(own(encodeUser('ü'.repeat(22)))).toMatchObject({ verdict: 'drop', because: 'cut_name' })
    expect(own(encodeUser('a'.repeat(128)))).toMatchObject({ verdict: 'grant', login: 'a'.repeat(128) })
    expect(own(encodeUser('a~'))).toMatchObject({ verdict: 'grant', login: 'a~' })
  })
})

describe('stamps of syslog-ng and appliances', () => {
  it.each([
    'Mar  5 10:11:12.123',
    'Mar 5 10:11:12',
    '2026 Mar  5 10:11:12',
    '2026 Mar 05 10:11:12.123456',
    'Mar  5 2026 10:11:12',
    '2026-03-05T10:11:12+0100',
  ])('%s', stamp => {
    const line = `${stamp} mx ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1`
    expect(verdictOn(line)).toMatchObject({ verdict: 'grant', stamp, ip: '192.0.2.7' })
    expect(verdictOn(`<22>${line}`)).toMatchObject({ verdict: 'grant', stamp })
  })

  it.each(['Mar 5 10:11', 'Mar  5  10:11:12', '26 Mar  5 10:11:12', 'x Mar  5 10:11:12', 'Mar   5 10:11:12'])(
    '%s is not a stamp',
    stamp => {
      expect(verdictOn(`${stamp} mx ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1`).verdict).toBe('ignore')
    },
  )
})

describe("Dovecot's standard output, as a syslogd or the journal passes it on", () => {
  const message = 'Logged in: user=<ann>, method=PLAIN, rip=203.0.113.6, lip=192.0.2.1, TLS'
  it.each([
    `Sep 28 22:41:07 imap-login: Info: ${message}`,
    `Sep 28 22:41:07 pop3-login: Info: ${message}`,
    `2026-09-28 22:41:07 pop3-login: Info: ${message}`,
  ])('%s', text => {
    expect(verdictOn(`Mar  5 10:11:12 mx dovecot[1]: ${text}`)).toMatchObject({ verdict: 'grant', login: 'ann' })
  })

  it.each([
    `Sep 28 22:41:07 pop3-login: Error: ${message}`,
    `Sep 28 22:41:07 auth: Info: pop3-login: ${message}`,
    `Sep 28 22:41:07 pop3-login: Info: Disconnected: ${message}`,
    `x Sep 28 22:41:07 pop3-login: Info: ${message}`,
    `Sep 28 22:41:07 Sep 28 22:41:07 pop3-login: Info: ${message}`,
    `pop3-login: Info: ${message}`,
  ])('opens nothing: %s', text => {
    expect(verdictOn(`Mar  5 10:11:12 mx dovecot[1]: ${text}`)).toMatchObject({ verdict: 'ignore' })
  })
})

describe('"message repeated"', () => {
  const login = 'Login user=a host=[192.0.2.7] nmsgs=1/1'
  const line = (message: string, { second = 12, host = 'mx', tag = 'ipop3d', pid = '7' } = {}): string =>
    `2026-03-05T10:11:${second}Z ${host} ${tag}[${pid}]: ${message}`
  const repeat = (text = login): string => `message repeated 3 times: [ ${text}]`
  const now = Date.parse('2026-03-05T10:12:00Z')
  const verdictAfter = (first: string, second: string, options: Partial<RecognizerOptions> = {}): Verdict => {
    const one = recognizer(options)
    one.recognize(first, now)
    return one.recognize(second, now)
  }

  it('is a login at its own time directly after the login that it repeats', () => {
    expect(verdictAfter(line(login), line(repeat(), { second: 50 }))).toMatchObject({
      verdict: 'grant',
      ip: '192.0.2.7',
      login: 'a',
      at: Date.parse('2026-03-05T10:11:50Z'),
    })
  })

  it.each<[string, string, string]>([
    ['another text', line(login), line(repeat('Login user=a host=[192.0.2.8] nmsgs=1/1'))],
    ['another PID', line(login), line(repeat(), { pid: '8' })],
    ['another host', line(login), line(repeat(), { host: 'mx2' })],
    ['another tag', line(login), line(repeat(), { tag: 'ipop3sd' })],
    ['a failure before', line('Login failed user=a auth=a host=[192.0.2.7]'), line(repeat())],
    ['nothing before', '', line(repeat())],
    ['no number', line(login), line(`message repeated x times: [ ${login}]`)],
    ['text behind', line(login), line(`${repeat()} x`)],
    ['a repeat in a repeat', line(login), line(repeat(repeat()))],
  ])('is not a login with %s', (_, first, second) => {
    expect(verdictAfter(first, second)).toMatchObject({ verdict: 'ignore' })
  })

  it('is not a login if there is another line of that tag in between', () => {
    const one = recognizer()
    one.recognize(line(login), now)
    one.recognize(line('Logout user=a host=[192.0.2.7]'), now)
    expect(one.recognize(line(repeat()), now)).toMatchObject({ reason: 'repeat line of no login' })
  })

  it('renews no grant that has ended, and no login of two lines', () => {
    const expired = recognizer({ maxAge: 60_000 })
    expect(expired.recognize(line(login), now).verdict).toBe('grant')
    expect(expired.recognize(line(repeat(), { second: 50 }), now + 20_000).verdict).toBe('drop')
    const two = recognizer()
    two.recognize(line('Session from 192.0.2.7', { tag: 'popa3d' }), now)
    expect(two.recognize(line('Authentication passed for a', { tag: 'popa3d' }), now).verdict).toBe('grant')
    expect(two.recognize(line(repeat('Authentication passed for a'), { tag: 'popa3d' }), now).verdict).toBe('ignore')
  })

  it('of 257 hosts the first is dropped', () => {
    const one = recognizer()
    for (let n = 0; n <= 256; n++) one.recognize(line(login, { host: `mx${n}` }), now)
    expect(one.recognize(line(repeat(), { host: 'mx0' }), now).verdict).toBe('ignore')
    expect(one.recognize(line(repeat(), { host: 'mx1' }), now).verdict).toBe('grant')
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
    expect(verdictOn(line), 'from syslog the line is no login').toMatchObject({ verdict: 'ignore' })
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

  it('keeps 4096 sessions and drops the oldest', () => {
    const both = recognizer()
    for (let pid = 1; pid <= 4097; pid++) both.recognize(line('Session from 203.0.113.9', String(pid)), 0)
    expect(both.recognize(line('Authentication passed for ann', '1'), 0).verdict).toBe('ignore')
    expect(both.recognize(line('Authentication passed for ann', '2'), 0).verdict).toBe('grant')
  })
})
