import { describe, expect, it } from 'vitest'
import { formatFault } from '../../../src/base/errors.ts'
import { ContainerLines } from '../../../src/syslog/container-lines.ts'
import type { Dialect } from '../../../src/syslog/dialect.ts'
import { DIALECTS } from '../../../src/syslog/dialects.ts'
import {
  type LineSettings,
  LoginRecognizer,
  type RecognizerOptions,
  recognizerOptions,
  type Verdict,
} from '../../../src/syslog/login-recognizer.ts'

const recognizer = (options: Partial<RecognizerOptions> = {}): LoginRecognizer =>
  new LoginRecognizer({ dialects: DIALECTS, imap: true, ...options })

const verdictOn = (line: string, options: Partial<RecognizerOptions> = {}): Verdict =>
  recognizer(options).recognize(line, 0)

describe('the reason of a verdict', () => {
  const at = (message: string, tag: string, pid = '7', stamp = '2026-03-05T10:11:12Z'): string =>
    `${stamp} mx ${tag}${pid === '' ? '' : `[${pid}]`}: ${message}`
  const login = 'Login user=a host=[192.0.2.7] nmsgs=1/1'

  it.each<[string, string, string, Partial<RecognizerOptions>]>([
    [
      'tag imapd: check_daemon_ipop3d, check_daemon_courier, check_daemon_cyrus is off',
      login,
      'imapd',
      { dialects: [] },
    ],
    ['not a login line of ipop3d, courier, cyrus', 'Hello', 'imapd', {}],
    ['not a login line of ipop3d', 'Hello', 'ipop3d', {}],
    ['control character in the message', `${login}\x01`, 'ipop3d', {}],
    ['address is not a numeric address', 'Login user=a host=[192.0.2.256] nmsgs=1/1', 'ipop3d', {}],
    ['address is not a numeric address', 'Session from nowhere', 'popa3d', {}],
    ['session line: its login line may follow', 'Session from 192.0.2.7', 'popa3d', {}],
    ['failed login', 'Authentication failed for a', 'popa3d', {}],
    ['IMAP login: check_imap is off', 'Login user=a host=[192.0.2.7]', 'imapd', { imap: false }],
  ])('%s', (reason, message, tag, options) => {
    expect(verdictOn(at(message, tag), options)).toStrictEqual({ verdict: 'ignore', reason, tag })
  })

  it('is the setting for a login of IMAP, unless the options have it', () => {
    const verdict = new LoginRecognizer({ dialects: DIALECTS }).recognize(
      at('Login user=a host=[192.0.2.7]', 'imapd'),
      0,
    )
    expect(verdict).toMatchObject({ reason: 'IMAP login: check_imap is off' })
  })

  it('names a session line without PID', () => {
    expect(verdictOn(at('Session from 192.0.2.7', 'popa3d', ''))).toMatchObject({ reason: 'session line without PID' })
  })

  it('has no tag and no text if the line has none', () => {
    expect(verdictOn('')).toStrictEqual({ verdict: 'ignore', reason: 'empty line' })
  })

  it('of a login that grants nothing is for people', () => {
    const named = (name: string, stamp?: string) =>
      verdictOn(at(login.replace('user=a', `user=${name}`), 'ipop3d', '7', stamp))
    expect(named('a'.repeat(80))).toMatchObject({
      reason: 'the login may be cut, so it cannot be compared with the blocked logins',
    })
    expect(named('a', '2026-02-30T10:11:12Z')).toMatchObject({ reason: 'the stamp names no time' })
  })

  it.each([
    [60, '60 min'],
    [119, '119 min'],
    [120, '2 h'],
    [2879, '47 h'],
    [2880, '2 d'],
    [5759, '3 d'],
  ])('of a login that is %i minutes old names the age in one unit', (minutes, age) => {
    const now = Date.parse('2026-03-05T10:11:12Z') + minutes * 60_000
    expect(recognizer({ maxAge: 60_000 }).recognize(at(login, 'ipop3d'), now)).toMatchObject({
      verdict: 'drop',
      reason: `the login is ${age} old, its grant would have ended`,
    })
  })
})

describe('a tag of several dialects', () => {
  const named = (name: string, read: Dialect['read']): Dialect => ({
    name,
    setting: `check_daemon_${name}`,
    tags: ['ipop3d'],
    doc: name,
    longestLogin: 255,
    read,
  })
  const logins = ['192.0.2.7', '192.0.2.8'].map(address =>
    named(`login-${address}`, () => ({ kind: 'login', address, login: 'ann' })),
  )
  const failure = named('failure', () => ({ kind: 'failure' }))
  const silent = named('silent', () => undefined)
  const line = 'Mar  5 10:11:12 mx ipop3d[1]: text'

  it('has the login of the first dialect that finds one', () => {
    for (const dialects of [logins, [failure, ...logins], [silent, ...logins, failure], [...logins, silent]]) {
      expect(verdictOn(line, { dialects })).toMatchObject({ verdict: 'grant', ip: '192.0.2.7' })
    }
  })

  it('has the reason of a dialect that parses the line, if none finds a login', () => {
    expect(verdictOn(line, { dialects: [failure, silent] })).toMatchObject({ reason: 'failed login' })
  })
})

describe('a verdict has the facts of the line', () => {
  it('the method is USER/PASS if the dialect names none, and TLS is named only if the line does', () => {
    const line = 'Mar  5 10:11:12 mx teapop[1]: Successful login for ann [192.0.2.1] from h.net [192.0.2.7]'
    const at = new Date(1970, 2, 5, 10, 11, 12).getTime()
    expect(recognizer().recognize(line, at)).toStrictEqual({
      verdict: 'grant',
      dialect: 'teapop',
      daemon: 'teapop',
      ip: '192.0.2.7',
      login: 'ann',
      method: 'pass',
      form: 'bsd',
      stamp: 'Mar  5 10:11:12',
      at,
      ahead: 0,
    })
  })
})

describe('syslog_hosts', () => {
  it("does not concern Dovecot's own log file, which names no host", () => {
    const line = 'Mar 05 10:11:12 pop3-login: Info: Login: user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS'
    expect(verdictOn(line, { ownFiles: true, hosts: ['mx'] })).toMatchObject({ verdict: 'grant', form: 'file' })
  })
})

describe('a repeat line', () => {
  const line = (message: string): string => `Mar  5 10:11:12 mx ipop3d[7]: ${message}`
  const login = 'Login user=a host=[192.0.2.7] nmsgs=1/1'

  it('of a line that was no login has no login to repeat', () => {
    const one = recognizer()
    one.recognize(line('Logout user=a'), 0)
    expect(one.recognize(line('message repeated 2 times: [ Logout user=a]'), 0)).toMatchObject({
      reason: 'repeat line of no login',
    })
  })

  it('may leave out the space in front of the text', () => {
    const one = recognizer()
    one.recognize(line(login), 0)
    expect(one.recognize(line(`message repeated 2 times: [${login}]`), 0)).toMatchObject({ verdict: 'grant' })
  })
})

describe('a session of two lines', () => {
  const line = (message: string): string => `Mar  5 10:11:12 mx popa3d[7]: ${message}`

  it.each([
    [120_000, 'grant'],
    [120_001, 'ignore'],
  ])('after %i ms: %s', (later, verdict) => {
    const both = recognizer()
    both.recognize(line('Session from 192.0.2.7'), 0)
    expect(both.recognize(line('Authentication passed for ann'), later)).toMatchObject({ verdict })
  })
})

describe('the options of the settings', () => {
  const settings = (authd: Partial<LineSettings['authd']> & Record<string, unknown> = {}, exp_time = 1800) =>
    recognizerOptions({
      authd: { check_imap: false, syslog_hosts: [], max_lag: 0, vchkpw_tag: 'vpopmail', daemon_tags: [], ...authd },
      grants: { exp_time },
    })

  it('have no dialect by default', () => {
    expect(settings()).toEqual({
      options: { dialects: [], tags: { vchkpw: ['vpopmail'] }, imap: false, hosts: [], maxAge: 1_800_000 },
      faults: [],
    })
  })

  it('have the dialects that are switched on, and no other', () => {
    const { options } = settings({ check_daemon_ipop3d: true, check_daemon_courier: true, check_daemon_cyrus: false })
    expect(options.dialects.map(({ name }) => name)).toEqual(['ipop3d', 'courier'])
  })

  it('take over check_imap, syslog_hosts and vchkpw_tag', () => {
    const { options } = settings({ check_imap: true, syslog_hosts: ['mx'], vchkpw_tag: 'vpop' })
    expect(options).toMatchObject({ imap: true, hosts: ['mx'], tags: { vchkpw: ['vpop'] } })
  })

  it('drop a login that is older than max_lag, and in any case one whose grant would have ended', () => {
    expect(settings({ max_lag: 600 }).options.maxAge).toBe(600_000)
    expect(settings({ max_lag: 3600 }).options.maxAge).toBe(1_800_000)
    expect(settings({ max_lag: 0 }, 60).options.maxAge).toBe(60_000)
  })

  it('have the tags of daemon_tags, in place of the tags of the dialect', () => {
    const daemon_tags = ['ipop3d=mypop', 'ipop3d=ipop3d', `qpopper=a/B-c_9.${'x'.repeat(24)}`, 'vchkpw=vchk']
    expect(settings({ daemon_tags })).toMatchObject({
      options: {
        tags: { ipop3d: ['mypop', 'ipop3d'], qpopper: [`a/B-c_9.${'x'.repeat(24)}`], vchkpw: ['vpopmail', 'vchk'] },
      },
      faults: [],
    })
  })

  it.each([
    'postfix=x',
    'ipop3d',
    'ipop3d=',
    `ipop3d=${'x'.repeat(33)}`,
    'ipop3d=a b',
    ' ipop3d=a',
    'ipop3d=a ',
    'ipop3d=a\n',
  ])('%j in daemon_tags is a fault', pair => {
    const { options, faults } = settings({ daemon_tags: [pair, 'ipop3d=mypop'] })
    expect(faults.map(formatFault)).toEqual([
      `authd.daemon_tags: ${JSON.stringify(pair)} is not a dialect with a tag: write DIALECT=TAG with one of ${DIALECTS.map(({ name }) => name).join(', ')}`,
    ])
    expect(options.tags).toEqual({ vchkpw: ['vpopmail'], ipop3d: ['mypop'] })
  })
})

describe('a line of a log file that a container runtime may write', () => {
  const at = '2026-11-28T08:00:00.123456789Z'
  const verdict = (line: string): Verdict =>
    recognizer().recognizeFileLine(line, new ContainerLines('first'), Date.parse(at))

  it('is an ordinary line if it has no form of a runtime', () => {
    const line = '2026-11-28T08:00:00Z mx ipop3d[1]: Login user=a host=[192.0.2.7] nmsgs=1/1'
    expect(verdict(line)).toMatchObject({ verdict: 'grant', form: 'rfc3339', stamp: '2026-11-28T08:00:00Z' })
    expect(verdict('Hello')).toMatchObject({ reason: 'not a syslog line: no known time stamp', near: 'Hello' })
  })

  it('is reported as a piece, or as text that is not a line of syslog', () => {
    expect(verdict(`${at} stdout P Hello`)).toStrictEqual({
      verdict: 'ignore',
      reason: 'a piece of a line of a container',
    })
    expect(verdict(`${at} stdout F Hello`)).toStrictEqual({
      verdict: 'ignore',
      reason: 'in a container: not a syslog line: no known time stamp',
    })
  })
})
