import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatTcpRule, parseTcpRule, parseTcpRules } from '../../../src/wire/tcprules.ts'

const parsed = (text: string) => {
  const { records, faults } = parseTcpRules(Buffer.from(text, 'latin1'))
  return { faults, records: records.map(({ key, data }) => [key, Buffer.from(data).toString('latin1')]) }
}

test('lines of a rules text', () => {
  expect(
    parsed(
      [
        '# comment',
        '127.:allow,RELAYCLIENT=""',
        '10.1.2-3.:deny  ',
        '=.example.org:allow,A="x,y",B=/a"b/',
        '2001:db8::7:allow',
        '2001:db8:::deny',
        'a line without a colon',
        '10.0.5-3.:deny',
        ':allow,A="1",A="2"',
        '',
      ].join('\n'),
    ),
  ).toEqual({
    faults: [],
    records: [
      ['127.', '+RELAYCLIENT=\0'],
      ['10.1.2.', 'D\0'],
      ['10.1.3.', 'D\0'],
      ['=.example.org', '+A=x,y\0+B=a"b\0'],
      ['2001:db8::7', ''],
      ['2001:db8::', 'D\0'],
      ['', '+A=1\0+A=2\0'],
    ],
  })
})

test('every fault is reported with its line', () => {
  const { records, faults } = parsed('nonsense:\n1.2.3.4:allow,X\n1.2.3.x-1:deny\n1.2.3.4:allow,X="y\n:allow\r\n:deny')
  expect(faults.map(({ line }) => line)).toEqual([1, 2, 3, 4, 5])
  expect(faults.at(-1)?.reason).toContain('carriage return')
  expect(records).toEqual([['', 'D\0']])
})

test('octets that are not text are unchanged', () => {
  expect(parsed('\xff\0:allow,X="\xe4"').records).toEqual([['\xff\0', '+X=\xe4\0']])
})

test('the time for a huge line grows only with its length', () => {
  const long = ' '.repeat(2_000_000)
  expect(parsed(`${long}\n10.${'9'.repeat(100_000)}-5.:deny\n:allow${',A="b"'.repeat(200_000)}`).records.length).toBe(1)
}, 20_000)

test('rule data is formatted and parsed back', () => {
  const name = fc.stringMatching(/^[A-Z_]{1,8}$/)
  const value = fc.stringMatching(/^[^\0]{0,12}$/).filter(text => text.isWellFormed())
  fc.assert(
    fc.property(fc.boolean(), fc.dictionary(name, value), (allow, environment) => {
      const rule = { allow, environment: { ...environment } }
      expect(parseTcpRule(formatTcpRule(rule))).toEqual(rule)
    }),
  )
  fc.assert(fc.property(fc.uint8Array(), data => void parseTcpRule(data)))
})
