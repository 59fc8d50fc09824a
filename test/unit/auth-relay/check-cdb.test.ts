import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { checkCdb } from '../../../src/auth-relay/check/check-gate.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { describeWith, ROOT } from '../../harness/describe-with.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

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
function findingsOf(rules: string | undefined, toml = ''): string[] {
  if (rules !== undefined) writeFileSync(`${directory}/tcp.smtp`, rules)
  const text = `[wrap]\ntcprules_static = "${directory}/tcp.smtp"\ntcprules_cdb = "${directory}/tcp.smtp.cdb"\n${toml}`
  return checkCdb(parseSettings(text, 'x.toml').settings).map(
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
    expect(findingsOf(undefined).at(-1)).toContain('unsafe wrap.tcprules_static: there is no ./tcp.smtp')
    expect(findingsOf('=.dyn.example.net:deny\n:allow\n').at(-1)).toContain(
      'advice wrap.tcprules_static: =.dyn.example.net:deny',
    )
  })

  test('records that a tcpserver may not find', () => {
    expect(findingsOf(':allow\n', '[grants]\nipv6_prefix = 64\n').at(-1)).toContain('advice grants.ipv6_prefix: ')
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
})
