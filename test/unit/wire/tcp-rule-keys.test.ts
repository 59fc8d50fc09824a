import { describe, expect, test } from 'vitest'
import { bitKeysOfText, bitRuleKeys, tcpRuleKeys, textRuleKeys } from '../../../src/wire/tcprules.ts'
import { ip, net as network } from '../../harness/addresses.ts'

const textKeys = (text: string): string[] => textRuleKeys(network(text)).flatMap(({ own }) => own)

describe('the order of the keys is tcpserver’s', () => {
  const withoutBits = (keys: Iterable<string>) => [...keys].filter(key => !/^[\^_]/.test(key))

  test('IPv4', () => {
    expect(withoutBits(tcpRuleKeys({ ip: ip('1.2.3.4'), host: 'A.B.c', info: 'joe' }))).toEqual([
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
    const keys = [...tcpRuleKeys({ ip: ip('1.2.3.4') })]
    expect(keys.slice(0, 6)).toEqual([
      '1.2.3.4',
      '1.2.3.',
      '1.2.',
      '1.',
      '_0000000h000000o0000000wx00000400',
      '_0000000h000000o0000000wx00000400\0',
    ])
    expect(keys.slice(-5)).toEqual(['_00', '_00\0', '_0', '_0\0', ''])
  })

  test('a host name that begins with a dot', () => {
    const keys = withoutBits(tcpRuleKeys({ ip: ip('1.2.3.4'), host: '.b.c' }))
    expect(keys).toEqual(['1.2.3.4', '=.b.c', '1.2.3.', '1.2.', '1.', '=.b.c', '=.c', '=', ''])
  })

  test('IPv6', () => {
    const keys = withoutBits(tcpRuleKeys({ ip: ip('2001:db8:0:1:1:1:1:1'), info: 'joe' }))
    expect(keys.slice(0, 15)).toEqual([
      'joe@2001:db8:0:1:1:1:1:1',
      'joe@2001:db8::1:1:1:1:1',
      'joe@2001:0DB8:0000:0001:0001:0001:0001:0001',
      // RFC 5952, Debian's ucspi-tcp-ipv6, ucspi-tcp6.
      '2001:db8:0:1:1:1:1:1',
      '2001:db8::1:1:1:1:1',
      '2001:0DB8:0000:0001:0001:0001:0001:0001',
      '2001:db8::1:1:1:1:',
      '2001:db8::1:1:1:',
      '2001:db8::1:1:',
      '2001:db8::1:',
      '2001:db8::',
      '2001:db8:',
      '2001:',
      '2001:db8:0:1:1:1:1:0/127',
      '2001:db8:0:1:1:1:1:0/126',
    ])
    expect(keys).toContain('2001:db8::/32')
    expect(keys.slice(-2)).toEqual(['::/1', ''])
    expect([...tcpRuleKeys({ ip: ip('2001:db8::7') })]).toContain('^00`000000000000a0000bc0de0fgh000')
  })

  test.each([
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:0:0:2:3:0:0:4', '1::2:3:0:0:4'],
    ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:7::'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
  ])('%s is looked up as %s', (address, text) => {
    expect(textKeys(address)).toEqual([text])
    expect([...tcpRuleKeys({ ip: ip(address) })]).toContain(text)
  })
})

describe('keys of a network', () => {
  test('IPv4 between two dots gives each of its addresses or prefixes', () => {
    expect(textKeys('10.0.0.0/8')).toEqual(['10.'])
    expect(textKeys('10.1.128.0/23')).toEqual(['10.1.128.', '10.1.129.'])
    expect(textKeys('192.0.2.4/30')).toEqual(['192.0.2.4', '192.0.2.5', '192.0.2.6', '192.0.2.7'])
    expect(textKeys('10.0.0.0/9').length).toBe(128)
    expect(textKeys('0.0.0.0/0')).toEqual([])
  })

  test('an IPv6 prefix ends behind a group, so that it cannot begin an address of another network', () => {
    expect(textKeys('2001:db8::/32')).toEqual(['2001:db8:'])
    expect(textKeys('2001:db8:0:5::/64')).toEqual(['2001:db8:0:5:'])
    expect(textKeys('2001:db8::/33')).toEqual([])
  })

  test('the prefixes around an IPv4 network cover all of it', () => {
    const { around } = bitRuleKeys(network('10.1.16.0/20'))
    expect(around.filter(key => !key.startsWith('_'))).toEqual(['10.1.', '10.', ''])
    expect(bitRuleKeys(network('10.1.16.5')).around.slice(0, 3)).toEqual(['10.1.16.', '10.1.', '10.'])
  })
})

describe('keys of ucspi-tcp6 for a network', () => {
  test.each([
    ['0.0.0.0/0', [], ['']],
    ['::/0', [], ['']],
    ['192.0.0.0/3', ['_ab0', '_ab0\0'], ['_ab0', '_ab0\0', '_ab', '_ab\0', '_a', '_a\0', '']],
    ['2000::/3', ['^00`', '^00`\0'], ['^00`', '^00`\0', '^00', '^00\0', '^0', '^0\0', '']],
  ])('%s', (text, own, around) => {
    expect(bitRuleKeys(network(text))).toEqual({ own, around })
  })

  test('one address has its text, and the dotted prefixes of IPv4 around it', () => {
    expect(bitRuleKeys(network('192.0.2.7')).own).toEqual(['192.0.2.7'])
    expect(bitRuleKeys(network('2001:db8::7')).own).toEqual(['2001:0DB8:0000:0000:0000:0000:0000:0007'])
    expect(bitRuleKeys(network('2001:db8::7')).around[0]).toMatch(/^\^[0-9`-\x7f]+$/)
  })
})

test('the keys around a network of ucspi-tcp are the prefixes of its text', () => {
  expect(textRuleKeys(network('10.1.16.0/24'))).toEqual([
    { own: ['10.1.16.'], around: ['10.1.16.', '10.1.', '10.', ''] },
  ])
  expect(textRuleKeys(network('2001:db8::/32'))).toEqual([{ own: ['2001:db8:'], around: ['2001:db8:', '2001:', ''] }])
})

test('ucspi-tcp6 stores these texts under other keys', () => {
  expect(bitKeysOfText('2001:db8::7')).toEqual(['2001:0DB8:0000:0000:0000:0000:0000:0007'])
  expect(bitKeysOfText('joe@2001:db8::7')).toEqual(['joe@2001:0DB8:0000:0000:0000:0000:0000:0007'])
  expect(bitKeysOfText('2000::/4')).toEqual(['^00`0', '^00`0\0'])
  expect(bitKeysOfText('192.0.0.0/3')).toEqual(['_ab0', '_ab0\0'])
  expect(bitKeysOfText('192./3')).toEqual(['_ab0', '_ab0\0'])
  expect(bitKeysOfText('8000::/1')).toEqual(['^`', '^`\0'])
  expect(bitKeysOfText('2000::/16')).toEqual(['^00`0000000000000', '^00`0000000000000\0'])
  expect(bitKeysOfText('@2001:db8::7')).toEqual(['@2001:0DB8:0000:0000:0000:0000:0000:0007'])
  for (const text of [
    '',
    '10.',
    '10.0.0.1',
    '=.example.org',
    'joe@10.0.0.1',
    '10.0.0.0/33',
    '10.0.0.0/0',
    '2001:db8:',
    'x/8',
    '10.0.0.0/8/8',
    '2001:db8::/x',
    '2001:db8::/x1',
    '2001:db8::/1x',
    '2001:db8::/0032',
    'joe@2001:db8::/32',
    'a=b@2001:db8::7',
  ])
    expect(bitKeysOfText(text)).toEqual([])
})
