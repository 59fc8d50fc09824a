import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type IpAddress, parseIpAddress } from '../../../src/wire/ip-address.ts'
import { formatTcpRule, parseTcpRule, parseTcpRules, tcpRuleKeys } from '../../../src/wire/tcprules.ts'

const ip = (text: string): IpAddress => {
  const parsed = parseIpAddress(text)
  if (parsed === undefined) throw new Error(text)
  return parsed
}

test('lines of a rules text', () => {
  const { lines, faults } = parseTcpRules(
    [
      '# comment',
      '127.:allow,RELAYCLIENT=""',
      '10.1.2-3.:deny  ',
      '=.example.org:allow,A="x,y",B=/a"b/',
      '2001:db8::7:allow',
      ':allow',
      '',
    ].join('\n'),
  )
  expect(faults).toEqual([])
  expect(lines).toEqual([
    { addresses: ['127.'], rule: { allow: true, environment: { RELAYCLIENT: '' } } },
    { addresses: ['10.1.2.', '10.1.3.'], rule: { allow: false, environment: {} } },
    { addresses: ['=.example.org'], rule: { allow: true, environment: { A: 'x,y', B: 'a"b' } } },
    { addresses: ['2001:db8::7'], rule: { allow: true, environment: {} } },
    { addresses: [''], rule: { allow: true, environment: {} } },
  ])
})

test('every fault is reported with its line', () => {
  const { lines, faults } = parseTcpRules('nonsense\n1.2.3.4:allow,X\n1.2.3.9-1:deny\n1.2.3.4:allow,X="y\n:allow')
  expect(faults.map(({ line }) => line)).toEqual([1, 2, 3, 4])
  expect(lines.length).toBe(1)
})

test('rule data: formatted and parsed again', () => {
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

test('the order of questions is tcpserver’s', () => {
  expect([...tcpRuleKeys({ ip: ip('1.2.3.4'), host: 'A.B.c', info: 'joe' })]).toEqual([
    'joe@1.2.3.4',
    'joe@=a.b.c',
    '1.2.3.4',
    '=a.b.c',
    '1.2.3.',
    '1.2.',
    '1.',
    '=.b.c',
    '=.c',
    '=',
    '',
  ])
  expect([...tcpRuleKeys({ ip: ip('1.2.3.4') })]).toEqual(['1.2.3.4', '1.2.3.', '1.2.', '1.', ''])
  const six = [...tcpRuleKeys({ ip: ip('2001:db8::7') })]
  expect([six[0], six[1], six.at(-1)]).toEqual(['2001:db8::7', '2001:db8::6/127', ''])
  expect(six).toContain('2001:db8::/32')
})
