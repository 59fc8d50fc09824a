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
        '::1:allow',
        '#1.2.3.4:allow',
        '1.2.3.5:deny\t',
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
      ['::1', ''],
      ['1.2.3.5', 'D\0'],
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

test.each([
  ['nonsense:', 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'],
  ['1.2.3.4:Allow', 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'],
  ['1.2.3.4:allow,X', 'after the instruction only ,NAME="value" may follow'],
  ['1.2.3.4:allow,X=', 'after the instruction only ,NAME="value" may follow'],
  ['1.2.3.4:allow,X="y', 'after the instruction only ,NAME="value" may follow'],
  ['1.2.3.4:allow X="y"', 'after the instruction only ,NAME="value" may follow'],
  ['1.2.3.4:allow,X="y"z', 'after the instruction only ,NAME="value" may follow'],
  ['1.2.3.4:deny#', 'after the instruction only ,NAME="value" may follow'],
  [',:allow,X="y', 'after the instruction only ,NAME="value" may follow'],
  ['deny:', 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'],
  ['xallow,A=":"', 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'],
  ['1.2.3.x-1:deny', 'the range in 1.2.3.x-1 is invalid'],
  ['1.2.3.1-x:deny', 'the range in 1.2.3.1-x is invalid'],
  [':allow\r', 'the line ends in a carriage return. Save the file with Unix line ends'],
])('%j has the fault: %s', (line, reason) => {
  const { faults } = parsed(`:deny\n${line}`)
  expect(faults).toEqual([{ line: 2, reason }])
})

test.each([
  ['10.0.0.7-9', ['10.0.0.7', '10.0.0.8', '10.0.0.9']],
  ['10.7-7.', ['10.7.']],
  ['7-8.1.', ['7.1.', '8.1.']],
  ['10.0.0.254-300', ['10.0.0.254', '10.0.0.255']],
  ['10.0.0.-1', ['10.0.0.0', '10.0.0.1']],
  ['10.0.0.9-7', []],
  ['-2', ['0', '1', '2']],
  ['a-b@1.2.3.4', ['a-b@1.2.3.4']],
  ['=a-b.example', ['=a-b.example']],
  ['1\x002-2', ['1', '2']],
])('the address %j has the keys %j', (address, keys) => {
  const { records, faults } = parsed(`${address}:allow`)
  expect([records.map(([key]) => key), faults]).toEqual([keys, []])
})

test.each([
  ['', { allow: true, environment: {} }],
  ['D', { allow: false, environment: {} }],
  ['D\0', { allow: false, environment: {} }],
  ['\0D\0', { allow: false, environment: {} }],
  ['+A\0', { allow: true, environment: {} }],
  ['+=b\0', { allow: true, environment: { '': 'b' } }],
  ['+A=b\0D\0', { allow: false, environment: { A: 'b' } }],
  ['+A=b', { allow: true, environment: { A: 'b' } }],
  ['+A=\0', { allow: true, environment: { A: '' } }],
  ['+A=b=c\0', { allow: true, environment: { A: 'b=c' } }],
  ['+A\0+B=c\0', { allow: true, environment: { B: 'c' } }],
  ['A=b\0', { allow: true, environment: {} }],
  ['+A=\xff\0', { allow: true, environment: { A: Buffer.of(0xff) } }],
])('the data %j is the rule %j', (data, rule) => {
  expect(parseTcpRule(Buffer.from(data, 'latin1'))).toEqual(rule)
})

test('a value of octets is written unchanged', () => {
  const rule = { allow: false, environment: { A: Uint8Array.of(0xff), B: 'ü' } }
  expect(formatTcpRule(rule).toString('latin1')).toBe('D\0+A=\xff\0+B=\xc3\xbc\0')
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
