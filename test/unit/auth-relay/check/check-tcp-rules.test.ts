import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { checkTcpRules } from '../../../../src/auth-relay/check/check-gate.ts'
import type { UnitFacts } from '../../../../src/auth-relay/check/check-rights.ts'
import { hiddenBy, readOnlyBy, sandboxOf } from '../../../../src/auth-relay/check/sandbox.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { formatCdb } from '../../../../src/wire/cdb.ts'
import { describeWith, ROOT } from '../../../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const temporary = temporaryDirectory()
afterAll(() => temporary.remove())
let directory = ''
let runs = 0
beforeEach(() => {
  directory = `${temporary.path}/${runs++}`
  mkdirSync(directory)
  chmodSync(temporary.path, 0o755)
})

/** check's findings about a site with these rules, each as one line. */
function findingsOf(rules: string | undefined, toml = '', unit?: UnitFacts): string[] {
  if (rules !== undefined) writeFileSync(`${directory}/tcp.smtp`, rules)
  const text = `[wrap]\ntcprules_static = "${directory}/tcp.smtp"\ntcprules_cdb = "${directory}/tcp.smtp.cdb"\n${toml}`
  return checkTcpRules(parseSettings(text, 'x.toml').settings, () => unit).map(
    ({ verdict, about, text: what, remedy }) => `${verdict} ${about}: ${what.replaceAll(directory, '.')} | ${remedy}`,
  )
}

describe('the cdb of tcpserver', () => {
  test('good rules and a directory that can be written are fine', () => {
    expect(findingsOf(':allow\nmail.example.org\n').map(line => line.split(' |')[0])).toEqual([
      'fine wrap.tcprules_cdb: this account can replace ./tcp.smtp.cdb',
      'fine wrap.tcprules_static: ./tcp.smtp has 1 rules',
    ])
  })

  test('every fault is named with its line', () => {
    const lines = findingsOf(':allow\r\n192.0.2.7:\n:deny\n').slice(1)
    expect(lines.map(line => /^unsafe wrap\.tcprules_static: \.\/tcp\.smtp:(\d):/.exec(line)?.[1])).toEqual(['1', '2'])
    expect(lines[0]).toContain('carriage return')
  })

  test('a missing file, and a deny by name, which a grant would hide', () => {
    expect(findingsOf(undefined).at(-1)).toContain('unsafe wrap.tcprules_static: ./tcp.smtp does not exist')
    expect(findingsOf('=.dyn.example.net:deny\n:allow\n').at(-1)).toContain(
      'advice wrap.tcprules_static: =.dyn.example.net:deny',
    )
  })

  test('records that a tcpserver may not find', () => {
    expect(findingsOf(':allow\n', '[grants]\nipv6_prefix = 64\n').at(-1)).toContain('advice grants.ipv6_prefix: ')
  })
})

describe('the rules of the resident gate', () => {
  const findings = (): string[] => {
    const text = `[wrap]\nlisten = ["*:25"]\nrules = "${directory}/tcp.smtp.cdb"\n`
    return checkTcpRules(parseSettings(text, 'x.toml').settings, () => undefined).map(
      ({ verdict, about, text: what, remedy }) => `${verdict} ${about}: ${what.replaceAll(directory, '.')} | ${remedy}`,
    )
  }

  test('a missing and a damaged file are unsafe, because every client gets 421', () => {
    expect(findings()).toEqual([
      'unsafe wrap.rules: ./tcp.smtp.cdb does not exist: every client gets 421 | create it with tcprules, or remove wrap.rules',
    ])
    writeFileSync(`${directory}/tcp.smtp.cdb`, ':allow\n')
    expect(findings()[0]).toMatch(/^unsafe wrap\.rules: \.\/tcp\.smtp\.cdb: a cdb has at least 2048 octets/)
  })

  test('a cdb is fine', () => {
    writeFileSync(`${directory}/tcp.smtp.cdb`, formatCdb([]))
    expect(findings()).toEqual(['fine wrap.rules: this account can read ./tcp.smtp.cdb | undefined'])
  })
})

describeWith([ROOT], 'the rights of the gate’s account', () => {
  const user = 'user = "61213"\n'

  test('are those of the account, not those of root', () => {
    chmodSync(directory, 0o755)
    writeFileSync(`${directory}/tcp.smtp`, ':allow\n', { mode: 0o600 })
    expect(findingsOf(undefined, user).map(line => line.split(' |')[0])).toEqual([
      'unsafe wrap.tcprules_cdb: 61213 cannot make files in .',
      'unsafe wrap.tcprules_static: 61213 cannot read ./tcp.smtp',
    ])
    chmodSync(`${directory}/tcp.smtp`, 0o644)
    chownSync(directory, 61_213, 61_213)
    expect(findingsOf(undefined, user).every(line => line.startsWith('fine '))).toBe(true)
  })

  test('under the unit of the gate count its options too', () => {
    chmodSync(directory, 0o755)
    chownSync(directory, 61_213, 61_213)
    const unit = (more: object): UnitFacts => ({
      ...{ user: 'daemon', groups: [], procSubset: 'pid' },
      sandbox: sandboxOf(
        'auth-relay-wrap.service',
        new Map(Object.entries({ ProtectSystem: 'strict', ProtectHome: 'yes', PrivateTmp: 'no', ...more })),
      ),
    })
    const edit = 'systemctl edit auth-relay-wrap, and write under [Service]: '
    expect(findingsOf(':allow\n', user, unit({}))).toEqual([
      `unsafe wrap.tcprules_cdb: ProtectSystem=strict of the unit auth-relay-wrap makes it read-only: .: the gate cannot replace the cdb | ${edit}ReadWritePaths=${directory}`,
      expect.stringMatching(/^fine wrap.tcprules_static/),
    ])
    expect(findingsOf(undefined, user, unit({ ReadWritePaths: `-/var/qmail ${directory}` }))[0]).toMatch(/^fine /)
    expect(findingsOf(undefined, user, unit({ PrivateTmp: 'yes' }))).toEqual([
      `unsafe wrap.tcprules_cdb: PrivateTmp=yes of the unit auth-relay-wrap hides it: .: the gate cannot replace the cdb | ${edit}PrivateTmp=no and, on a separate line, ReadWritePaths=${directory}`,
      `unsafe wrap.tcprules_static: PrivateTmp=yes of the unit auth-relay-wrap hides it: ./tcp.smtp: the gate cannot read the rules | ${edit}PrivateTmp=no`,
    ])
  })

  test('the drop-in of the examples and the units of the package permit what the documents name', () => {
    const optionsOf = (...names: readonly string[]): ReadonlyMap<string, string> =>
      new Map(
        names
          .flatMap(name =>
            readFileSync(new URL(`../../../../deploy/systemd/${name}`, import.meta.url), 'utf8').split('\n'),
          )
          .flatMap(line => {
            const [, option = '', value = ''] = /^(\w+)=(.*)$/.exec(line) ?? []
            return option === '' ? [] : [[option, value]]
          }),
      )
    const wrap = sandboxOf('auth-relay-wrap.service', optionsOf('auth-relay-wrap.service'))
    expect(readOnlyBy(wrap, '/run/auth-relay/gate')).toBeUndefined()
    expect(readOnlyBy(wrap, '/etc/tcp.smtp.d')?.option).toBe('ProtectSystem=strict')
    const withCdb = sandboxOf('auth-relay-wrap.service', optionsOf('auth-relay-wrap.service', 'wrap-cdb.conf'))
    expect(readOnlyBy(withCdb, '/etc/tcp.smtp.d')).toBeUndefined()
    expect(hiddenBy(withCdb, '/home/vpopmail/etc')?.option).toBe('ProtectHome=yes')
    const page = sandboxOf('auth-relay-status-page.service', optionsOf('auth-relay-status-page.service'))
    expect(readOnlyBy(page, '/run/auth-relay/status')).toBeUndefined()
    const authd = sandboxOf('auth-relay-authd.service', optionsOf('auth-relay-authd.service'))
    expect(readOnlyBy(authd, '/var/lib/auth-relay')).toBeUndefined()
  })
})
