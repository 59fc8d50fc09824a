import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { type NumberedLine, NumberedLines } from '../../../src/auth-relay/numbered-lines.ts'
import { formatJson, formatText, readDialects } from '../../../src/auth-relay/verbs/test-line.ts'
import { DIALECTS } from '../../../src/syslog/dialects.ts'
import { LoginRecognizer } from '../../../src/syslog/login-recognizer.ts'

const linesOf = async (chunks: readonly Buffer[]): Promise<NumberedLine[]> => {
  const lines: NumberedLine[] = []
  const stream = (async function* () {
    yield* chunks
  })()
  for await (const line of new NumberedLines(stream)) lines.push(line)
  return lines
}

describe('the lines of a log', () => {
  test('have numbers; the last needs no line end; one that is too long keeps its number', async () => {
    const chunks = [Buffer.from(`a\n${'x'.repeat(9000)}`), Buffer.from('y\n\nlast')]
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
  ])('are the same wherever the stream is cut', async (texts, cuts) => {
    const whole = Buffer.from(texts.map(text => `${text}\n`).join(''))
    const at = [0, ...cuts.map(cut => Math.min(cut, whole.length)).sort((a, b) => a - b), whole.length]
    const chunks = at.slice(1).map((end, i) => whole.subarray(at[i], end))
    expect((await linesOf(chunks)).map(({ text }) => text)).toEqual(texts)
  })
})

describe('a verdict', () => {
  const recognizer = new LoginRecognizer({ dialects: DIALECTS })
  const line = 'Nov 22 18:24:58 mail ipop3d[123]: Login user=ann host=client.example.org [192.0.2.7] nmsgs=1/1'

  test('as JSON has exactly the promised members', () => {
    expect(formatJson(1, recognizer.recognize(line, 0))).toBe(
      '{"n":1,"verdict":"grant","dialect":"ipop3d","ip":"192.0.2.7","login":"ann"}\n',
    )
    const ignored: unknown = JSON.parse(formatJson(2, recognizer.recognize('no log line', 0)))
    expect(ignored).toEqual({ n: 2, verdict: 'ignore', reason: expect.any(String) })
  })

  test('for people is one line, whatever the login is called', () => {
    expect(formatText(1, recognizer.recognize(line, 0))).toBe('    1  grant   192.0.2.7  ann  (ipop3d)\n')
    const forged = {
      ...recognizer.recognize(line, 0),
      verdict: 'grant',
      dialect: 'x',
      daemon: 'x',
      method: 'pass',
      stamp: '',
      login: 'a\n\u001b[2J',
    } as const
    const ip = recognizer.recognize(line, 0)
    if (ip.verdict !== 'grant') throw new Error('no grant')
    expect(formatText(1, { ...forged, ip: ip.ip })).toBe('    1  grant   192.0.2.7  a\\u{a}\\u{1b}[2J  (x)\n')
  })
})

describe('dialects', () => {
  test('are named by name or by setting, or all', () => {
    expect(readDialects('all')).toBe(DIALECTS)
    expect(readDialects('ipop3d,check_daemon_vchkpw').map(({ name }) => name)).toEqual(['ipop3d', 'vchkpw'])
    expect(() => readDialects('dovcot')).toThrow('did you mean dovecot?')
  })
})
