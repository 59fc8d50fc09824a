import { describe, expect, test } from 'vitest'
import { MAX_SYSLOG_LINE, parseOwnFileLine, parseSyslogLine } from '../../../src/syslog/syslog-line.ts'

const ISO = '2026-11-28T10:11:12.123+01:00'
const BSD = 'Nov 28 10:11:12'

describe('the parts of a line', () => {
  test.each([
    [`${BSD} mx popper[7]: hello`, { form: 'bsd', stamp: BSD, host: 'mx', tag: 'popper', pid: '7', message: 'hello' }],
    [`<22>${BSD} mx popper: hello`, { form: 'bsd', stamp: BSD, host: 'mx', tag: 'popper', pid: '', message: 'hello' }],
    [`<0>${BSD} <mail.info> mx p[1]: x`, { form: 'bsd', stamp: BSD, host: 'mx', tag: 'p', pid: '1', message: 'x' }],
    [`${ISO} mx p[1]: a\nb`, { form: 'rfc3339', stamp: ISO, host: 'mx', tag: 'p', pid: '1', message: 'a\nb' }],
    [`${BSD} mx /usr/sbin/ipop3d[1]: x`, { tag: 'ipop3d' }],
    [`${BSD} mx cyrus/pop3[1]: x`, { tag: 'cyrus/pop3' }],
    [`${BSD} mx p[1]: [ID 702911 mail.info] x`, { message: 'x' }],
    [`${BSD} mx p[1]: x [ID 702911 mail.info] y`, { message: 'x [ID 702911 mail.info] y' }],
    [`${BSD} mx p[1]: [ID x] y`, { message: '[ID x] y' }],
    [`${BSD} mx p[1]: `, { message: '' }],
    [
      `<191>1 ${ISO} mx app 7 id - hello`,
      { form: 'rfc5424', stamp: ISO, host: 'mx', tag: 'app', pid: '7', message: 'hello' },
    ],
    [`<22>1 - - app - - -`, { form: 'rfc5424', stamp: '-', host: '-', tag: 'app', pid: '', message: '' }],
    [`<22>1 ${ISO} mx app 7 id [a b="c\\"]"][d] \uFEFFtext`, { message: 'text' }],
    [`<22>1 ${ISO} mx app 7 id -  text`, { message: 'text' }],
    [`<22>1 ${ISO} mx app 7 id -   text`, { message: ' text' }],
    [`1 ${ISO} mx /usr/sbin/app 7 id - text`, { form: 'rfc5424', tag: 'app', message: 'text' }],
    [`1 - mx app 7 id - text`, { form: 'rfc5424', stamp: '-' }],
  ])('%j', (line, parts) => {
    expect(parseSyslogLine(line)).toMatchObject(parts)
  })
})

describe('an invalid line is reported with its invalid part', () => {
  test.each([
    ['', 'empty line', undefined],
    [`<192>${BSD} mx p[1]: x`, 'priority above 191', undefined],
    [`<192>1 ${ISO} mx app 7 id - x`, 'priority above 191', undefined],
    [`<22>1 ${ISO} mx - 7 id - x`, 'no program name', undefined],
    [`${BSD} mx last message repeated 3 times`, 'repeat line', undefined],
    [`<22>${ISO} mx last message repeated 1 time`, 'repeat line', undefined],
    [
      `${BSD} mx last message repeated x times`,
      'not a syslog line: no tag (NAME: or NAME[PID]:) after the host name',
      'last message repeated x times',
    ],
    ['hello', 'not a syslog line: no known time stamp', 'hello'],
    ['<22>hello', 'not a syslog line: no known time stamp', 'hello'],
    [`${BSD}x mx p: x`, 'not a syslog line: no known time stamp', `${BSD}x mx p: x`],
    [`<22>${BSD} p: x`, 'not a syslog line: no host name after the stamp', 'p: x'],
    [`${BSD}`, 'not a syslog line: no host name after the stamp', ''],
    [`${BSD} mx`, 'not a syslog line: no tag (NAME: or NAME[PID]:) after the host name', ''],
    [`${BSD} <mail.info> mx hello`, 'not a syslog line: no tag (NAME: or NAME[PID]:) after the host name', 'hello'],
    [`${BSD} mx p[1] x`, 'not a syslog line: no tag (NAME: or NAME[PID]:) after the host name', 'p[1] x'],
    [`<22>1 ${ISO} mx`, 'not a syslog line: no header of RFC 5424 after its stamp', 'mx'],
    ['1 - mx', 'not a syslog line: no header of RFC 5424 after its stamp', 'mx'],
    [`dovecot: ${BSD} pop3-login: Info: Login: x`, "Dovecot's own log file: only follow_files reads it", undefined],
    [`${BSD} master: Info: Dovecot v2.4.1-4 starting up`, "Dovecot's own log file: not of a login service", undefined],
    [
      `${BSD} pop3(ann)<4466><yC4hbFxh>: Info: Disconnected: x`,
      "Dovecot's own log file: not of a login service",
      undefined,
    ],
    [`${BSD} auth: Error: x`, "Dovecot's own log file: not of a login service", undefined],
    [`${BSD} master: Info`, 'not a syslog line: no host name after the stamp', 'master: Info'],
  ])('%j', (line, unreadable, near) => {
    expect(parseSyslogLine(line)).toEqual(near === undefined ? { unreadable } : { unreadable, near })
  })

  test('the reported text is limited to 40 characters', () => {
    expect(parseSyslogLine('x'.repeat(41))).toEqual({
      unreadable: 'not a syslog line: no known time stamp',
      near: 'x'.repeat(40),
    })
  })

  test.each([
    ['octets', 'x', 1],
    ['octets of two a character', 'ü', 2],
    ['octets of three a character', '€', 3],
  ])('a line has at most 8192 octets: %s', (_, character, size) => {
    const head = `${BSD} mx p[1]: `
    const rest = MAX_SYSLOG_LINE - head.length
    const longest = head + character.repeat(Math.floor(rest / size)) + 'x'.repeat(rest % size)
    expect(Buffer.byteLength(longest)).toBe(MAX_SYSLOG_LINE)
    expect(parseSyslogLine(longest)).toMatchObject({ tag: 'p' })
    expect(parseSyslogLine(`${longest}x`)).toEqual({ unreadable: 'longer than 8192 octets' })
  })
})

describe("a line of Dovecot's own file", () => {
  test.each([
    [`${BSD} pop3-login: Info: Login: user=<a>`, BSD, 'pop3-login: Login: user=<a>'],
    [`dovecot: 2026-11-28 10:11:12 Info: imap-login: Login`, '2026-11-28 10:11:12', 'imap-login: Login'],
    [`2026-11-28T10:11:12.5+01:00 imap-login: Info: a\nb`, '2026-11-28T10:11:12.5+01:00', 'imap-login: a\nb'],
  ])('%j', (line, stamp, message) => {
    expect(parseOwnFileLine(line)).toEqual({ form: 'file', stamp, host: '', tag: 'dovecot', pid: '', message })
  })

  test.each([
    `${BSD} lmtp: Info: Login`,
    `${BSD} pop3-login: Error: Login`,
    ` ${BSD} pop3-login: Info: Login`,
    'pop3-login: Info: Login',
  ])('%j is not a line of Dovecot', line => {
    expect(parseOwnFileLine(line)).toBeUndefined()
  })

  test('has at most 8192 characters', () => {
    const head = `${BSD} pop3-login: Info: `
    const longest = head + 'x'.repeat(MAX_SYSLOG_LINE - head.length)
    expect(parseOwnFileLine(longest)?.message.length).toBe(MAX_SYSLOG_LINE - head.length + 'pop3-login: '.length)
    expect(parseOwnFileLine(`${longest}x`)).toBeUndefined()
  })
})
