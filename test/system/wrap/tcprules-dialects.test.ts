import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Cdb, formatCdb } from '../../../src/wire/cdb.ts'
import { type Network, parseIpAddress, parseNetwork } from '../../../src/wire/ip-address.ts'
import { formatTcpRule, parseTcpRules } from '../../../src/wire/tcprules.ts'
import { TcpRulesFile } from '../../../src/wrap/gate/tcp-rules-file.ts'
import { SiteRules } from '../../../src/wrap/services/site-rules.ts'
import { fileInPackage, unpackedPackage } from '../../harness/hosts/unpacked-package.ts'
import { command, describeWith, pathOf } from '../../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const cdb = `${directory.path}/rules.cdb`

/** Records that a tcprules makes of a text; undefined if it refuses the text. */
function recordsBy(tcprules: string, text: Buffer): readonly (readonly [string, string])[] | undefined {
  rmSync(cdb, { force: true })
  const { status, error } = spawnSync(tcprules, [cdb, `${cdb}.tmp`], { input: text, timeout: 10_000 })
  if (error !== undefined) throw error
  if (status !== 0) return undefined
  return [...new Cdb(readFileSync(cdb)).records()].map(({ key, value }) => [key, latin1(value)])
}

function ourRecords(text: Buffer): readonly (readonly [string, string])[] | undefined {
  const { records, faults } = parseTcpRules(text)
  return faults.length > 0 ? undefined : records.map(({ key, data }) => [key, latin1(data)])
}

const latin1 = (octets: Uint8Array): string => Buffer.from(octets).toString('latin1')

const octet = fc.nat(300).map(String)
const anything = fc.string({ unit: fc.nat(255).map(code => String.fromCharCode(code)), maxLength: 8 })
const ipv4 = fc.oneof(
  fc.ipV4(),
  fc.tuple(octet, octet).map(([a, b]) => `${a}.${b}.`),
  fc.tuple(octet, octet, octet).map(([a, b, c]) => `${a}.${b}-${c}.`),
  fc.tuple(octet, octet, octet, octet).map(([a, b, c, d]) => `${a}.${b}.${c}.${d}-${a}`),
  fc.tuple(octet, octet).map(([a, b]) => `${a}-${b}`),
  fc.constantFrom(
    '10.0.5-3.',
    '1.2.3.007-9',
    '1.2.3.-4',
    '1.2.3.4-',
    '-',
    '1.2-3.4-5.',
    '1.2.3.250-99999999999999999999',
    '1.2.3.18446744073709551617-3',
    '1.2.3.1\0x-3',
    '1.2.3.4.',
    '.',
    '10./8',
    '10.0.0.0/8',
  ),
)
const name = fc.constantFrom(
  '=',
  '=mx.example.org',
  '=.example.org',
  'my-host.example.org',
  'joe@1.2.3.4',
  'a-b@=x',
  '',
)
const address = fc.oneof({ weight: 4, arbitrary: ipv4 }, name, anything)
const address6 = fc.oneof(fc.ipV6(), fc.constantFrom('2001:db8::', '2001:db8:', '::', '::1', '2001:db8::/32', '1::2-3'))
const instruction = fc.constantFrom('allow', 'deny', 'allow', 'deny', 'allowx', 'den', '', 'deny:allow')
const variable = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(',RELAYCLIENT=""', ',X="a b"', ',A,B=/x/', ',="y"', ',X=:deny:', ',X=\0y\0'),
  },
  fc.constantFrom(',X', ',X=', ',X="y', 'X="y"', ' ,X="y"', ',X="y" ', ',X="y"z'),
  anything.map(text => `,X="${text}"`),
)
const end = fc.constantFrom('', '', '', ' ', '\t \t', '\r', ' \r', '\0')
const rule = (from: fc.Arbitrary<string>) =>
  fc
    .tuple(from, instruction, fc.array(variable, { maxLength: 3 }), end)
    .map(([at, word, variables, last]) => `${at}:${word}${variables.join('')}${last}`)
const noRule = fc.oneof(
  fc.constantFrom('', '#', '# :deny', ' # x', '   ', '\t', 'mail.example.org', '\r', 'x,y'),
  anything,
)
const lines = (from: fc.Arbitrary<string>) =>
  fc
    .tuple(
      fc.array(fc.oneof({ weight: 5, arbitrary: rule(from) }, noRule), { maxLength: 4 }),
      fc.constantFrom('', '\n'),
    )
    .map(([all, last]) => Buffer.from(all.join('\n') + last, 'latin1'))

describeWith([command('tcprules', 'ucspi-tcp'), unpackedPackage('ucspi-tcp-ipv6')], 'rules texts', () => {
  let tcprules = ''
  let tcprules6 = ''
  beforeAll(() => {
    tcprules = pathOf('tcprules') ?? ''
    tcprules6 = fileInPackage('ucspi-tcp-ipv6', '/usr/bin/tcprules')
  })

  test('have the same verdict and the same records as with tcprules', { timeout: 120_000 }, () => {
    const verdicts = { accepted: 0, refused: 0 }
    fc.assert(
      fc.property(lines(address), text => {
        // With a colon in an address the two programs differ: see below.
        fc.pre(!text.toString('latin1').split('\n').some(hasColonBeforeInstruction))
        const expected = recordsBy(tcprules, text)
        verdicts[expected === undefined ? 'refused' : 'accepted'] += 1
        expect(ourRecords(text)).toEqual(expected)
      }),
      { numRuns: 400 },
    )
    expect(Math.min(verdicts.accepted, verdicts.refused)).toBeGreaterThan(50)
  })

  test('of one line each, so that no fault hides another', { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(fc.oneof(rule(address), noRule), line => {
        fc.pre(!line.split('\n').some(hasColonBeforeInstruction))
        const text = Buffer.from(line, 'latin1')
        expect(ourRecords(text)).toEqual(recordsBy(tcprules, text))
      }),
      { numRuns: 400 },
    )
  })

  test('with colons in addresses as the tcprules of ucspi-tcp-ipv6', { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(lines(fc.oneof(address6, address)), text => {
        // That program never ends on a line without an instruction.
        const rows = text.toString('latin1').split('\n')
        fc.pre(rows.every(row => row.startsWith('#') || row === '' || /:(?:allow|deny)/.test(row)))
        expect(ourRecords(text)).toEqual(recordsBy(tcprules6, text))
      }),
      { numRuns: 400 },
    )
  })

  test('a line of some megabytes', () => {
    const text = Buffer.from(`10.:allow,X="${'x'.repeat(3_000_000)}"\n${' '.repeat(1_000_000)}\n:deny`)
    expect(ourRecords(text)).toEqual(recordsBy(tcprules, text))
  })
})

/** `a:b:allow`: ucspi-tcp refuses it, and the patched program reads the address `a:b`. */
const hasColonBeforeInstruction = (line: string): boolean =>
  !line.startsWith('#') && line.includes(':') && !/^[^:]*:(?:allow|deny)/.test(line) && /:(?:allow|deny)/.test(line)

describeWith([command('tcprulescheck', 'ucspi-tcp'), unpackedPackage('ucspi-tcp-ipv6')], 'the cdb', () => {
  const network = (text: string): Network => {
    const parsed = parseNetwork(text)
    if (parsed === undefined) throw new Error(text)
    return parsed
  }
  /** The verdict of Debian's ucspi-tcp-ipv6 for an address: deny, relay or allow. */
  function byTcpserver(ip: string): string {
    const check = fileInPackage('ucspi-tcp-ipv6', '/usr/bin/tcprulescheck')
    const { stdout } = spawnSync(check, [cdb], { env: { TCPREMOTEIP: ip }, encoding: 'utf8' })
    return stdout.includes('deny') ? 'deny' : stdout.includes('RELAYCLIENT') ? 'relay' : 'allow'
  }
  function byGate(ip: string): string {
    const parsed = parseIpAddress(ip)
    if (parsed === undefined) throw new Error(ip)
    const rule = new TcpRulesFile(cdb).find({ ip: parsed })
    return rule.allow ? (rule.environment['RELAYCLIENT'] === undefined ? 'allow' : 'relay') : 'deny'
  }
  function write(rules: string, ...grants: readonly string[]): void {
    writeFileSync(`${directory.path}/rules`, rules)
    const data = formatTcpRule({ allow: true, environment: { RELAYCLIENT: '' } })
    const listed = grants.map(text => ({ network: network(text) }))
    writeFileSync(
      cdb,
      SiteRules.read(`${directory.path}/rules`).format(listed, () => data),
    )
  }

  test('a site’s deny of an IPv6 prefix overrides a grant', () => {
    write('2001:db8:::deny\n:allow\n', '2001:db8::8', '2001:db9::8')
    expect(['2001:db8::8', '2001:db8::9', '2001:db9::8', '2001:db9::9'].map(byTcpserver)).toEqual([
      'deny',
      'deny',
      'relay',
      'allow',
    ])
  })

  test('networks with a grant or an allowance are found, and no other address', () => {
    write(':allow\n', '2001:db8:5::/48', '2001:db8:6:7::/64', '10.1.128.0/17', '192.0.2.4/30', '2001:db8:0:9::/64')
    for (const [ip, verdict] of [
      ['2001:db8:5::1', 'relay'],
      ['2001:db8:5:1:2:3:4:5', 'relay'],
      ['2001:db8:6:7::1', 'relay'],
      ['2001:db8:6:8::1', 'allow'],
      ['2001:db8:6::7:1', 'allow'],
      ['2001:db8:0:9::1', 'relay'],
      // Printed as 2001:db8::9:1.
      ['2001:db8:0:0:0:0:9:1', 'allow'],
      ['10.1.127.255', 'allow'],
      ['10.1.128.0', 'relay'],
      ['10.1.255.255', 'relay'],
      ['192.0.2.3', 'allow'],
      ['192.0.2.4', 'relay'],
      ['192.0.2.8', 'allow'],
    ] as const)
      expect([ip, byTcpserver(compressed(ip))]).toEqual([ip, verdict])
  })

  test('the gate finds the same rule in a cdb of the real tcprules as tcpserver', { timeout: 120_000 }, () => {
    const group = fc.constantFrom('0', '0', '1', 'db8', 'ffff', 'a0')
    const ip = fc.array(group, { minLength: 8, maxLength: 8 }).map(groups => parseIpAddress(groups.join(':')) ?? '::2')
    const prefix = fc.tuple(ip, fc.nat(39)).map(([text, length]) => compressed(text).slice(0, length))
    const rules = fc.array(
      fc.tuple(fc.oneof(prefix, ip.map(compressed)), fc.constantFrom('allow', 'deny', 'allow,RELAYCLIENT=""')),
      { maxLength: 8 },
    )
    const tcprules6 = fileInPackage('ucspi-tcp-ipv6', '/usr/bin/tcprules')
    fc.assert(
      fc.property(rules, fc.array(ip, { minLength: 1, maxLength: 4 }), (all, addresses) => {
        const text = all.map(([at, what]) => `${at}:${what}\n`).join('')
        expect(recordsBy(tcprules6, Buffer.from(text))).toBeDefined()
        expect(existsSync(cdb)).toBe(true)
        // The gate accepts other texts of the same address as well, such as that of RFC 5952.
        for (const each of addresses.filter(address => address === compressed(address)))
          expect([text, each, byGate(each)]).toEqual([text, each, byTcpserver(each)])
      }),
      { numRuns: 150 },
    )
  })
})

/**
 * The text of an address in the patched tcpserver: `::` also stands for a single group of zeros.
 */
function compressed(ip: string): string {
  if (!ip.includes(':')) return ip
  const canonical = parseIpAddress(ip) ?? ip
  return canonical.includes('::') ? canonical : canonical.replace(/(^|:)0(:|$)/, '::')
}

describe('a cdb of ucspi-tcp6', () => {
  // Made by hand from the rules 2001:db8::/32:deny, 10.0.0.0/9:deny and 2001:db9::7:deny.
  test('can be read by the gate, with and without the NUL that older versions write', () => {
    const deny = formatTcpRule({ allow: false, environment: {} })
    for (const last of ['', '\0']) {
      const keys = ['^00`000000000000a0000bc0de0fgh000', '_0000e0g00'].map(key => key + last)
      writeFileSync(cdb, cdbOf([...keys, '2001:0DB9:0000:0000:0000:0000:0000:0007'], deny))
      const verdicts = ['2001:db8:5::1', '2001:db9::1', '2001:db9::7', '10.127.0.1', '10.128.0.1'].map(text => {
        const ip = parseIpAddress(text)
        return ip === undefined ? undefined : new TcpRulesFile(cdb).find({ ip }).allow
      })
      expect(verdicts).toEqual([false, true, false, false, true])
    }
  })
})

const cdbOf = (keys: readonly string[], value: Uint8Array): Buffer => formatCdb(keys.map(key => ({ key, value })))
