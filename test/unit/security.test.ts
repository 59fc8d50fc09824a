import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

const root = new URL('../..', import.meta.url).pathname
const text = readFileSync(`${root}SECURITY.md`, 'utf8')
const attacks = text
  .slice(text.indexOf('## Known attacks'))
  .split('\n')
  .filter(line => /^\| (?!attack |Resource |---)/.test(line))
  .map(line => line.split('|').map(cell => cell.trim()))

describe('SECURITY.md', () => {
  test('names the known attacks on this class of program', () => {
    for (const name of ['CVE-2001-1075', 'CVE-2011-0411', 'relay-ctrl', 'NAT']) expect(text).toContain(name)
    expect(attacks.length).toBeGreaterThan(12)
  })

  test.each(attacks.map(([, attack = '', , tests = '']) => [attack, tests]))('%s: its tests exist', (_, tests) => {
    const files = [...tests.matchAll(/`(test\/[^`]+)`/g)].map(([, file = '']) => file)
    expect(files.length).toBeGreaterThan(0)
    expect(files.filter(file => !existsSync(`${root}${file}`))).toEqual([])
  })
})
