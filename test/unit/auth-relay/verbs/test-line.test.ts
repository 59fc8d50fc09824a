import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { type NumberedLine, NumberedLines } from '../../../../src/auth-relay/verbs/logs/numbered-lines.ts'
import { formatJson, formatText, LineTest, readDialects } from '../../../../src/auth-relay/verbs/logs/test-line.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { DIALECTS } from '../../../../src/syslog/dialects.ts'

const linesOf = async (chunks: readonly Buffer[]): Promise<NumberedLine[]> => {
  const lines: NumberedLine[] = []
  const stream = (async function* () {
    yield* chunks
  })()
  for await (const line of new NumberedLines(stream)) lines.push(line)
  return lines
}

describe('the lines of a log', () => {
  test('have numbers; the last needs no line end; a line that is too long keeps its number', async () => {
    const chunks = [Buffer.from(`a\n${'x'.repeat(140_000)}`), Buffer.from('y\n\nlast')]
    expect(await linesOf(chunks)).toEqual([
      { n: 1, text: 'a' },
      { n: 2, text: undefined },
      { n: 3, text: '' },
      { n: 4, text: 'last' },
    ])
    expect(await linesOf([])).toEqual([])
  })

  property.prop([
    fc.array(fc.stringMatching(/^[ -~]{0,20}$/), { minLength: 1 }),
    fc.array(fc.nat(200), { maxLength: 6 }),
  ])('do not depend on the pieces of the stream', async (texts, cuts) => {
    const whole = Buffer.from(texts.map(text => `${text}\n`).join(''))
    const at = [0, ...cuts.map(cut => Math.min(cut, whole.length)).sort((a, b) => a - b), whole.length]
    const chunks = at.slice(1).map((end, i) => whole.subarray(at[i], end))
    expect((await linesOf(chunks)).map(({ text }) => text)).toEqual(texts)
  })
})

describe('a verdict', () => {
  const now = Date.parse('2026-11-22T18:25:00Z')
  const lineTest = (toml = '', options = {}): LineTest =>
    new LineTest(parseSettings(toml, 'test.toml').settings, options)
  const on = '[authd]\ncheck_daemon_ipop3d = true\ncheck_daemon_dovecot = true'
  const line = (address = '192.0.2.7', stamp = '2026-11-22T18:24:58Z'): string =>
    `${stamp} mail ipop3d[123]: Login user=ann host=client.example.org [${address}] nmsgs=1/1`

  test('as JSON has exactly the documented members', () => {
    expect(formatJson(1, lineTest(on).run(line(), now))).toBe(
      '{"n":1,"verdict":"grant","dialect":"ipop3d","ip":"192.0.2.7","login":"ann"}\n',
    )
    const ignored: unknown = JSON.parse(
      formatJson(2, lineTest(on).run('Nov 22 18:24:58 mail postfix/smtpd[1]: x', now)),
    )
    expect(ignored).toEqual({ n: 2, verdict: 'ignore', reason: expect.any(String) })
  })

  test('as text is one line, also for a login name with control characters', () => {
    expect(formatText(1, lineTest(on).run(line(), now))).toBe('    1  grant   192.0.2.7  ann  (ipop3d)\n')
    const { verdict } = lineTest(on).run(line(), now)
    if (verdict.verdict !== 'grant') throw new Error('no grant')
    expect(formatText(1, { verdict: { ...verdict, login: 'a\n\u001b[2J' }, needs: [] })).toBe(
      '    1  grant   192.0.2.7  a\\u{a}\\u{1b}[2J  (ipop3d)\n',
    )
  })

  test('names the part of a line that is invalid', () => {
    const text = (line: string): string => formatText(1, lineTest().run(line, now))
    expect(text('Nov 22 mail ipop3d[1]: x')).toBe(
      '    1  ignore  not a syslog line: no known time stamp, at "Nov 22 mail ipop3d[1]: x"\n',
    )
    expect(text('Nov 22 18:24:58 ipop3d[1]: x')).toContain('no host name after the stamp, at "ipop3d[1]: x"')
    expect(text('Nov 22 18:24:58 mail ipop3d x')).toContain('after the host name, at "ipop3d x"')
    expect(text('Nov 22 18:24:58 mail \u001b[2J')).toContain('at "\\u{1b}[2J"')
  })

  test('names the settings that the site must switch on', () => {
    expect(formatText(1, lineTest().run(line(), now))).toBe(
      '    1  grant   192.0.2.7  ann  (ipop3d), with check_daemon_ipop3d = true\n',
    )
    const own = '2026-11-22T18:24:58Z pop3-login: Info: Login: user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1'
    expect(formatText(1, lineTest().run(own, now))).toBe(
      '    1  grant   192.0.2.7  ann  (dovecot), with check_daemon_dovecot = true and follow_files\n',
    )
    expect(JSON.parse(formatJson(1, lineTest(on).run(own, now)))).toMatchObject({ needs: ['follow_files'] })
    const imap = '2026-11-22T18:24:58Z mail imapd[1]: Login user=ann host=[192.0.2.7]'
    expect(formatText(1, lineTest().run(imap, now))).toContain('check_imap is off')
    expect(lineTest('', { imap: true }).run(imap, now).verdict.verdict).toBe('grant')
  })

  test('drops the same lines as authd: by age, and by an ungrantable address', () => {
    const text = (line: string, toml = on): string => formatText(1, lineTest(toml).run(line, now))
    expect(text(line('192.0.2.7', '2026-11-22T17:24:58Z'))).toBe(
      '    1  drop    192.0.2.7  ann  (ipop3d): the login is 60 min old, its grant would have ended\n',
    )
    expect(text(line('192.0.2.7', '2026-11-22T17:24:58Z'), `${on}\n[grants]\nexp_time = "2h"`)).toContain('grant ')
    expect(formatText(1, lineTest(on, { anyAge: true }).run(line('192.0.2.7', '2020-11-22T17:24:58Z'), now))).toContain(
      'grant ',
    )
    expect(text(line('127.0.0.1'))).toContain(
      'drop    127.0.0.1  ann  (ipop3d): the address is never granted: loopback',
    )
    expect(text(line('192.0.2.7'), `${on}\n[grants]\nnever_grant = ["192.0.2.0/24"]`)).toContain(
      'never granted: listed in grants.never_grant',
    )
    expect(text(line('192.0.2.7'), `${on}\n[popup]\nproxy_trust = ["192.0.2.0/24"]`)).toContain(
      'never granted: listed in popup.proxy_trust',
    )
    expect(JSON.parse(formatJson(1, lineTest(on).run(line('127.0.0.1'), now)))).toEqual({
      n: 1,
      verdict: 'drop',
      dialect: 'ipop3d',
      ip: '127.0.0.1',
      login: 'ann',
      reason: 'the address is never granted: loopback',
    })
  })

  test('accepts the hosts and tags of the settings', () => {
    const toml = `${on}\nsyslog_hosts = ["pop"]\ndaemon_tags = ["ipop3d=mypop"]`
    expect(lineTest(toml).run(line(), now).verdict.verdict).toBe('ignore')
    expect(lineTest(toml).run(line().replace(' mail ipop3d', ' pop mypop'), now).verdict.verdict).toBe('grant')
    expect(() => lineTest('[authd]\ndaemon_tags = ["x"]')).toThrow('write DIALECT=TAG')
  })
})

describe('dialects', () => {
  test('are named by name or by setting, or all', () => {
    expect(readDialects('all')).toBe(DIALECTS)
    expect(readDialects('ipop3d,check_daemon_vchkpw').map(({ name }) => name)).toEqual(['ipop3d', 'vchkpw'])
    expect(() => readDialects('dovcot')).toThrow('did you mean dovecot?')
  })
})
