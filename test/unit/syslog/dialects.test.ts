import { describe, expect, test } from 'vitest'
import type { Dialect, DialectFields } from '../../../src/syslog/dialect.ts'
import { DIALECTS, dialectNamed } from '../../../src/syslog/dialects.ts'
import { LOGINS } from './known-lines.ts'

const dialect = (name: string): Dialect => dialectNamed(name) ?? expect.unreachable(name)
const received = (name: string, tag: string, message: string): DialectFields | undefined =>
  dialect(name).read(message, tag)

type Login = Extract<DialectFields, { kind: 'login' }>
const login = (rest: Partial<Login> = {}): Login => ({ kind: 'login', address: '192.0.2.7', login: 'ann', ...rest })

const DOVECOT = 'user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1'
const PROXY = 'started proxying to 192.0.2.20:110: user=<ann>'
const LOGFMT = 'event=login.good r.clienthost=192.0.2.7 u.username=ann'
const PERDITION = 'Auth: 192.0.2.7:1->198.51.100.9:110'
const QPOPPER_END = 'at (h.example.net) 192.0.2.7'

test('the dialects, with their settings, the octets of their longest login, and their tags', () => {
  const rows = DIALECTS.map(({ name, setting, longestLogin, tags }) => [name, setting, longestLogin, tags.join(' ')])
  expect(rows).toEqual([
    ['ipop3d', 'check_daemon_ipop3d', 80, 'ipop3d ipop3sd ipop2d sipop3d imapd imapsd simapd'],
    ['vchkpw', 'check_daemon_vchkpw', 155, 'vpopmail'],
    ['qmail-pop3d', 'check_daemon_hacked_qmailpop3d', 255, 'qmail-pop3d'],
    ['dovecot', 'check_daemon_dovecot', 255, 'dovecot'],
    ['dovecot-proxy', 'check_daemon_dovecot_proxy', 77, 'dovecot'],
    [
      'courier',
      'check_daemon_courier',
      255,
      'pop3d pop3d-ssl imapd imapd-ssl pop3login imaplogin courierpop3login courierimaplogin couriertcpd',
    ],
    [
      'cyrus',
      'check_daemon_cyrus',
      255,
      'cyrus/pop3 cyrus/pop3s cyrus/imap cyrus/imaps pop3d imapd pop3 pop3s imap imaps',
    ],
    ['qpopper', 'check_daemon_qpopper', 64, 'popper qpopper in.qpopper in.popper'],
    ['solid-pop3d', 'check_daemon_solid', 40, 'solid-pop3d spop3d'],
    ['solid-pop3d-two-lines', 'check_daemon_solid_two_lines', 40, 'solid-pop3d spop3d'],
    ['teapop', 'check_daemon_teapop', 255, 'teapop'],
    ['tpop3d', 'check_daemon_tpop3d', 255, 'tpop3d'],
    ['gnu-pop3d', 'check_daemon_gnu_pop3d', 255, 'gnu-pop3d'],
    ['vm-pop3d', 'check_daemon_vm_pop3d', 255, 'vm-pop3d'],
    ['vm-pop3d-two-lines', 'check_daemon_vm_pop3d_two_lines', 255, 'vm-pop3d'],
    [
      'perdition',
      'check_daemon_perdition',
      128,
      'perdition perdition.pop3 perdition.pop3s perdition.imap perdition.imaps perdition.imap4 perdition.imap4s',
    ],
    ['cucipop', 'check_daemon_cucipop', 64, 'cucipop'],
    ['popa3d', 'check_daemon_popa3d', 255, 'popa3d'],
  ])
})

describe('every part of a login line', () => {
  test.each<[string, string, string, DialectFields]>([
    ['ipop3d', 'ipop3d', 'Login user=ann host=[192.0.2.7] nmsgs=1/1', login({ imap: false, method: 'pass' })],
    ['ipop3d', 'ipop3d', 'Auth user=ann host=[192.0.2.7] no mailbox', login({ imap: false, method: 'sasl' })],
    ['ipop3d', 'ipop3d', 'APOP user=ann host=h.net [192.0.2.7] nmsgs=1/1', login({ imap: false, method: 'apop' })],
    ['ipop3d', 'imapd', 'Login user=ann host=[192.0.2.7]', login({ imap: true, method: 'pass' })],
    ['ipop3d', 'imapd', 'Authenticated user=ann host=[192.0.2.7] mech=PLAIN', login({ imap: true, method: 'sasl' })],

    ['vchkpw', 'vpopmail', 'vchkpw-pop3: (PLAIN) login success ann@:192.0.2.7', vchkpw({ login: 'ann@' })],
    ['vchkpw', 'vpopmail', 'vchkpw-pop3: (APOP) login success a@b:192.0.2.7', vchkpw({ method: 'apop' })],
    [
      'vchkpw',
      'vpopmail',
      'vchkpw-pop3s: (CRAM-MD5) login success a@b:192.0.2.7',
      vchkpw({ method: 'sasl', tls: true }),
    ],
    ['vchkpw', 'vpopmail', 'vchkpw-imap: (PLAIN) login success a@b:192.0.2.7', vchkpw({ imap: true })],
    ['vchkpw', 'vpopmail', 'vchkpw-imaps: (PLAIN) login success a@b:192.0.2.7', vchkpw({ imap: true, tls: true })],
    ['vchkpw', 'vpopmail', 'vchkpw-110: (PLAIN) login success a@b:192.0.2.7', vchkpw({})],
    ['vchkpw', 'vpopmail', 'vchkpw-143: (PLAIN) login success a@b:192.0.2.7', vchkpw({ imap: true })],
    ['vchkpw', 'vpopmail', 'vchkpw-993: (PLAIN) login success a@b:192.0.2.7', vchkpw({ imap: true })],
    ['vchkpw', 'vpopmail', 'vchkpw-110: system password login success ann:192.0.2.7', vchkpw({ login: 'ann' })],
    ['vchkpw', 'vpopmail', 'vchkpw-pop3: (PLAIN) login success a@b:2001_db8__7', vchkpw({ address: '2001:db8::7' })],
    ['vchkpw', 'vpopmail', 'vchkpw: login success a@b:192.0.2.7', login({ login: 'a@b' })],
    ['vchkpw', 'vpopmail', 'vchkpw: login [a@b] from 2001_db8__7', login({ login: 'a@b', address: '2001:db8::7' })],

    ['dovecot', 'dovecot', `pop3-login: Login: ${DOVECOT}`, dovecot({})],
    ['dovecot', 'dovecot', `imap-login: Logged in: ${DOVECOT}, TLS`, dovecot({ imap: true, tls: true })],
    ['dovecot', 'dovecot', `pop3-login: Login: ${DOVECOT}, mpid=1, TLS, session=<x>`, dovecot({ tls: true })],
    ['dovecot', 'dovecot', `pop3-login: Login: ${DOVECOT}, mpid=1, TLSv1.2`, dovecot({})],
    ['dovecot', 'dovecot', `pop3-login: Login: ${DOVECOT.replace('PLAIN', 'APOP')}`, dovecot({ method: 'apop' })],
    ['dovecot', 'dovecot', `pop3-login: Login: ${DOVECOT.replace('PLAIN', 'CRAM-MD5')}`, dovecot({ method: 'sasl' })],
    [
      'dovecot',
      'dovecot',
      `pop3-login: Login: ${DOVECOT.replace('ann', `${'a'.repeat(73)}...`)}`,
      dovecot({ login: `${'a'.repeat(73)}...` }),
    ],
    [
      'dovecot',
      'dovecot',
      `pop3-login: Login: ${DOVECOT.replace('ann', `${'a'.repeat(74)}...`)}`,
      dovecot({ login: `${'a'.repeat(74)}...`, cut: true }),
    ],
    [
      'dovecot-proxy',
      'dovecot',
      `pop3-login: proxy(ann): ${PROXY}, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1`,
      login({ imap: false, tls: false, method: 'pass' }),
    ],
    [
      'dovecot-proxy',
      'dovecot',
      `imap-login: proxy(ann,192.0.2.20:143): ${PROXY}, method=XOAUTH2, rip=192.0.2.7, lip=192.0.2.1, TLS`,
      login({ imap: true, tls: true, method: 'sasl' }),
    ],
    [
      'dovecot-proxy',
      'dovecot',
      `pop3-login: proxy(ann): ${PROXY}, method=APOP, rip=192.0.2.7, lip=192.0.2.1, TLS, session=<x>`,
      login({ imap: false, tls: true, method: 'apop' }),
    ],

    ['courier', 'pop3d', 'LOGIN, user=ann, ip=[192.0.2.7]', login({ imap: false, tls: false })],
    ['courier', 'pop3d', 'LOGIN, user=ann, ip=[192.0.2.7], stls=1', login({ imap: false, tls: true })],
    ['courier', 'imapd', 'LOGIN, user=ann, ip=[192.0.2.7], starttls=1', login({ imap: true, tls: true })],
    ['courier', 'pop3d-ssl', 'LOGIN, user=ann, ip=[192.0.2.7], port=[1]', login({ imap: false, tls: true })],
    ['courier', 'couriertcpd', 'LOGIN, user=ann, ip=[192.0.2.7], protocol=IMAP', login({ imap: true, tls: false })],
    ['courier', 'couriertcpd', 'LOGIN, user=ann, ip=[192.0.2.7], protocol=POP3', login({ imap: false, tls: false })],
    ['courier', 'couriertcpd', 'LOGIN, user=ann, ip=[192.0.2.7], protocol=ximap', login({ imap: false, tls: false })],

    ['cyrus', 'pop3', 'login: [192.0.2.7] ann plaintext User logged in', login({ imap: false, tls: false })],
    ['cyrus', 'imaps', 'login: h.net[192.0.2.7] ann PLAIN+TLS User logged in', login({ imap: true, tls: true })],
    ['cyrus', 'pop3', LOGFMT, login({ imap: false, tls: false })],
    ['cyrus', 'imap', `${LOGFMT} login.tls=1`, login({ imap: true, tls: true })],
    ['cyrus', 'pop3', `${LOGFMT} login.tls=0`, login({ imap: false, tls: false })],
    ['cyrus', 'pop3', `${LOGFMT} login.anonymous=0 login.mech=PLAIN`, login({ imap: false, tls: false })],
    ['cyrus', 'pop3', LOGFMT.replace('192.0.2.7', '"h [192.0.2.7]"'), login({ imap: false, tls: false })],

    ['perdition', 'perdition', `${PERDITION} user="ann" status="ok"`, login({ imap: false, tls: false })],
    [
      'perdition',
      'perdition',
      `${PERDITION} user=bob authentication_id=ann status="ok"`,
      login({ imap: false, tls: false }),
    ],
    ['perdition', 'perdition.imap4', `${PERDITION} user=ann status="ok"`, login({ imap: true, tls: false })],
    ['perdition', 'perdition', `${PERDITION} user=ann protocol=IMAP4 status="ok"`, login({ imap: true, tls: false })],
    ['perdition', 'perdition', `${PERDITION} user=ann protocol=xIMAP status="ok"`, login({ imap: false, tls: false })],
    [
      'perdition',
      'perdition',
      `${PERDITION} client-secure=ssl user=ann status="ok"`,
      login({ imap: false, tls: true }),
    ],
    [
      'perdition',
      'perdition',
      `${PERDITION} client-secure=tls user=ann status="ok"`,
      login({ imap: false, tls: true }),
    ],
    [
      'perdition',
      'perdition',
      `${PERDITION} client-secure=nossl user=ann status="ok"`,
      login({ imap: false, tls: false }),
    ],
    [
      'perdition',
      'perdition',
      'Auth: [2001:db8::7]:1->[2001:db8::9]:110 user=ann status="ok"',
      login({ address: '2001:db8::7', imap: false, tls: false }),
    ],

    ['qpopper', 'popper', `(v4.0.9) POP login by user "ann" ${QPOPPER_END}`, login()],
    ['qpopper', 'popper', 'Stats: ann 0 0 3 4120 192.0.2.7', login()],
    ['teapop', 'teapop', 'Successful login for ann [192.0.2.1] from h.net [192.0.2.7]', login()],
    ['tpop3d', 'tpop3d', "fork_child: [5]192.0.2.7: began session for `ann' with pam; child PID is 77", login()],
    ['gnu-pop3d', 'gnu-pop3d', 'User ann logged in with mailbox /var/mail/ann from 192.0.2.7', login()],
    ['cucipop', 'cucipop', 'ann 192.0.2.7 0, 3 (4096), 3 (4096)', login()],
    ['popa3d', 'popa3d', 'Authentication passed for ann -- [192.0.2.7]', login()],
    ['solid-pop3d', 'spop3d', 'user ann authenticated - h.net (192.0.2.7)', login({ method: 'pass' })],
    ['solid-pop3d', 'spop3d', 'mapped user ann authenticated through APOP - 192.0.2.7', login({ method: 'apop' })],
    ['vm-pop3d', 'vm-pop3d', 'User ann logged in from 192.0.2.7', login()],
    ['vm-pop3d', 'vm-pop3d', "User 'ann' logged in from 192.0.2.7", login()],
    ['vm-pop3d', 'vm-pop3d', "User 'ann' of 'b.net' logged in from 192.0.2.7", login({ login: 'ann@b.net' })],
    [
      'qmail-pop3d',
      'qmail-pop3d',
      'authrelay v=1 ev=login ip=192.0.2.7 tls=1 method=sasl user=ann',
      login({ cut: false, tls: true, method: 'sasl' }),
    ],
  ])('%s, %s: %s', (name, tag, message, expected) => {
    expect(received(name, tag, message)).toEqual(expected)
  })

  function vchkpw(rest: Partial<Login>): Login {
    return login({ login: 'a@b', imap: false, tls: false, method: 'pass', ...rest })
  }

  function dovecot(rest: Partial<Login>): Login {
    return login({ cut: false, imap: false, tls: false, method: 'pass', ...rest })
  }
})

describe('a quoted name of gnu-pop3d', () => {
  test.each([
    ["'ann'", 'ann'],
    ["'a'", 'a'],
    ["''", "''"],
    ["'ann", "'ann"],
    ["ann'", "ann'"],
    ["x'ann'", "x'ann'"],
    ["'ann'x", "'ann'x"],
    ["'a'n'", "'a'n'"],
  ])('%s is %s', (written, name) => {
    const message = `User ${written} logged in with mailbox /var/mail/ann from 192.0.2.7`
    expect(received('gnu-pop3d', 'gnu-pop3d', message)).toEqual(login({ login: name }))
  })
})

describe('two lines of one session', () => {
  test.each<[string, string, DialectFields]>([
    ['popa3d', 'Session from 192.0.2.7', { kind: 'session', address: '192.0.2.7' }],
    ['popa3d', 'Session from ', { kind: 'session', address: '' }],
    ['popa3d', 'Authentication passed for ann', { kind: 'success', login: 'ann' }],
    ['popa3d', 'Authentication failed for ann', { kind: 'failure' }],
    ['popa3d', "Didn't attempt authentication", { kind: 'failure' }],
    ['solid-pop3d-two-lines', 'connect from h.net (192.0.2.7)', { kind: 'session', address: '192.0.2.7' }],
    ['solid-pop3d-two-lines', 'connect from 192.0.2.7', { kind: 'session', address: '192.0.2.7' }],
    ['solid-pop3d-two-lines', 'user ann authenticated', { kind: 'success', login: 'ann', method: 'pass' }],
    ['solid-pop3d-two-lines', 'user ann authenticated through APOP', { kind: 'success', login: 'ann', method: 'apop' }],
    ['solid-pop3d-two-lines', 'authentication failed: no such user: ann', { kind: 'failure' }],
    ['solid-pop3d-two-lines', 'session ended: connection closed', { kind: 'failure' }],
    ['vm-pop3d-two-lines', 'Connect from 192.0.2.7', { kind: 'session', address: '192.0.2.7' }],
    ['vm-pop3d-two-lines', 'User ann logged in', { kind: 'success', login: 'ann' }],
    ['vm-pop3d-two-lines', "User 'ann' of 'b.net' logged in", { kind: 'success', login: 'ann@b.net' }],
    ['vm-pop3d-two-lines', "User 'ann' - failed auth", { kind: 'failure' }],
  ])('%s: %s', (name, message, expected) => {
    expect(received(name, '', message)).toEqual(expected)
  })
})

describe('a line that resembles one of two lines', () => {
  test.each([
    ['popa3d', ': Session from 192.0.2.7'],
    ['popa3d', `Session from ${'x'.repeat(256)}`],
    ['popa3d', ': Authentication passed for ann'],
    ['popa3d', 'Authentication passed for ann x'],
    ['popa3d', ': Authentication failed for ann'],
    ['solid-pop3d-two-lines', ': connect from 192.0.2.7'],
    ['solid-pop3d-two-lines', `connect from ${'x'.repeat(301)}`],
    ['solid-pop3d-two-lines', ': user ann authenticated'],
    ['solid-pop3d-two-lines', 'user ann authenticated x'],
    ['solid-pop3d-two-lines', ': authentication failed'],
    ['vm-pop3d-two-lines', ': Connect from 192.0.2.7'],
    ['vm-pop3d-two-lines', `Connect from ${'x'.repeat(256)}`],
    ['vm-pop3d-two-lines', ': User ann logged in'],
    ['vm-pop3d-two-lines', 'User ann logged in x'],
    ['vm-pop3d-two-lines', ': User ann - failed auth'],
  ])('%s: %s', (name, message) => {
    expect(received(name, '', message)).toBeUndefined()
  })
})

describe('a line that is not a login', () => {
  test.each(DIALECTS)('$name reads nothing in other texts', ({ name, tags, read }) => {
    const of = LOGINS.filter(known => known.dialect === name)
    for (const tag of tags) {
      for (const text of ['', 'x', ...of.flatMap(({ message }) => [`: ${message}`, `${message.slice(0, 12)}`])]) {
        expect(read(text, tag), text).toBeUndefined()
      }
      // A site may add elements to Dovecot's line behind the elements that are read.
      for (const { message } of of.filter(known => !known.message.includes(', mpid=')))
        expect(read(`${message} x`, tag), message).toBeUndefined()
    }
  })

  test.each([
    ['an anonymous name', 'login: [192.0.2.7] Anonymous plaintext User logged in'],
    ['an anonymous mechanism', 'login: [192.0.2.7] ann anonymous User logged in'],
    ['a failure', LOGFMT.replace('good', 'bad')],
    ['no name', LOGFMT.replace(' u.username=ann', '')],
    ['an empty name', LOGFMT.replace('=ann', '=""')],
    ['a name with a space', LOGFMT.replace('=ann', '="a b"')],
    ['no address', LOGFMT.replace(' r.clienthost=192.0.2.7', '')],
    ['a host without address', LOGFMT.replace('192.0.2.7', '"h.net"')],
    ['a name of an anonymous client', LOGFMT.replace('=ann', '=anonymous')],
    ['a mechanism of an anonymous client', `${LOGFMT} login.mech=ANONYMOUS`],
    ['an anonymous client', `${LOGFMT} login.anonymous=1`],
    ['an empty mark of an anonymous client', `${LOGFMT} login.anonymous=`],
    ['a space at the end', `${LOGFMT} `],
    ['a key that comes twice', `${LOGFMT} u.username=ann`],
    ['an invalid key', `${LOGFMT} 1=2`],
    ['a quote without its end', `${LOGFMT} a="b`],
  ])('Cyrus: %s', (_, message) => {
    expect(received('cyrus', 'pop3', message)).toBeUndefined()
  })

  test.each([
    ['no name', `${PERDITION} status="ok"`],
    ['an empty name', `${PERDITION} user="" status="ok"`],
    ['an empty name in front of another', `${PERDITION} authentication_id="" user=ann status="ok"`],
    ['a name with a space', `${PERDITION} user="a b" status="ok"`],
    ['a key that comes twice', `${PERDITION} user=ann user=ann status="ok"`],
    ['two states', `${PERDITION} user=ann status="failed" status="ok"`],
    ['another state', `${PERDITION} user=ann status="failed"`],
  ])('perdition: %s', (_, message) => {
    expect(received('perdition', 'perdition', message)).toBeUndefined()
  })

  test.each(['25', '465', '587'])('vchkpw for port %s, which is of SMTP', port => {
    expect(received('vchkpw', 'vpopmail', `vchkpw-${port}: (PLAIN) login success a@b:192.0.2.7`)).toBeUndefined()
  })

  test("a name in front of Dovecot's words of success that is not the one behind them", () => {
    const message = `pop3-login: proxy(bob): ${PROXY}, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1`
    expect(received('dovecot-proxy', 'dovecot', message)).toBeUndefined()
  })
})

describe('a message that a syslogd may have cut is not a login', () => {
  const elements = (count: number, octets: number): string =>
    Array.from({ length: count }, () => `, session=<${'x'.repeat(octets)}>`).join('')

  test.each([
    [600, true],
    [601, false],
  ])('Dovecot as a proxy, %i octets', (octets, isLogin) => {
    const name = 'a'.repeat(77)
    const head = `pop3-login: proxy(${name}): started proxying to 192.0.2.20/${name}: user=<${name}>`
    const begin = `${head}, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1${elements(3, 60)}`
    const message = `${begin}${elements(1, octets - begin.length - ', session=<>'.length)}`
    expect(message).toHaveLength(octets)
    expect(received('dovecot-proxy', 'dovecot', message) !== undefined).toBe(isLogin)
  })

  test.each([
    [600, true],
    [601, false],
  ])('perdition, %i octets', (octets, isLogin) => {
    const filled = (length: number) =>
      `${PERDITION} a="${'x'.repeat(128)}" b="${'x'.repeat(128)}" c="${'x'.repeat(128)}" d=${'x'.repeat(60)} e="${'x'.repeat(length)}" user=ann status="ok"`
    const message = filled(octets - filled(0).length)
    expect(message).toHaveLength(octets)
    expect(received('perdition', 'perdition', message) !== undefined).toBe(isLogin)
  })
})
