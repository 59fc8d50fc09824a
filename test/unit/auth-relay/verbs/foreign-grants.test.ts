import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { FORMATS, readForeignGrants } from '../../../../src/auth-relay/verbs/logs/foreign-grants.ts'
import { command, describeWith } from '../../../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)

const now = new Date('2026-11-26T12:00:00Z')
const seconds = now.getTime() / 1000
const times = { now, expTime: 1_800_000 }

/**
 * The result of a format for a file: address, age in seconds and login of each entry, and the
 * number of invalid entries.
 */
function read(name: string, file: string) {
  const format = FORMATS[name]
  if (format === undefined) throw new Error(`there is no format ${name}`)
  const { logins, faults } = readForeignGrants(format, file, times)
  return { found: logins.map(({ ip, at, user }) => [ip, (now.getTime() - at.getTime()) / 1000, user]), faults }
}

function file(text: string): string {
  writeFileSync(`${path}/file`, text)
  return `${path}/file`
}

describe('files of lines', () => {
  test('open-smtp of vpopmail', () => {
    const text = `192.0.2.9:allow,RELAYCLIENT="",RBLSMTPD=""\t${seconds - 60}\n# comment\n192.0.2.10:allow,\tsoon\n`
    expect(read('open-smtp', file(text))).toEqual({ found: [['192.0.2.9', 60, '']], faults: 1 })
  })

  test('relayhosts of cPanel counts from the current time', () => {
    expect(read('relayhosts', file('192.0.2.9\n\n2001:db8::7\n192.0.2.0/24\n'))).toEqual({
      found: [
        ['192.0.2.9', 0, ''],
        ['2001:db8::7', 0, ''],
      ],
      faults: 1,
    })
  })

  test('csv, as psql prints it; a time in the future is a fault', () => {
    const text = `192.0.2.9,${seconds - 5},ann@example.org\n"2001:db8::7","${seconds}"\n192.0.2.10,${seconds + 1}\n`
    expect(read('csv', file(text))).toEqual({
      found: [
        ['192.0.2.9', 5, 'ann@example.org'],
        ['2001:db8::7', 0, ''],
      ],
      faults: 1,
    })
  })
})

test('times with a fraction and blanks around fields are accepted; faults have their line numbers', () => {
  const format = FORMATS['csv']
  if (format === undefined) throw new Error('no csv')
  const text = [
    '# dumped yesterday',
    `192.0.2.9,${seconds - 5}.5`,
    ` 192.0.2.10 , ${seconds - 7} , ann `,
    '',
    'address,time',
    `192.0.2.11,${seconds - 1}.`,
    ` 300.0.2.1,${seconds}`,
  ].join('\n')
  const { logins, faults, samples } = readForeignGrants(format, file(text), times)
  expect(logins.map(({ ip, at, user }) => [ip, (now.getTime() - at.getTime()) / 1000, user])).toEqual([
    ['192.0.2.9', 4.5, ''],
    ['192.0.2.10', 7, 'ann'],
  ])
  expect(faults).toBe(3)
  expect(samples).toEqual([
    { n: 5, text: 'address,time' },
    { n: 6, text: `192.0.2.11,${seconds - 1}.` },
    { n: 7, text: `300.0.2.1,${seconds}` },
  ])
})

test('ten faults are kept with a shortened text; the others are counted', () => {
  const format = FORMATS['relayhosts']
  if (format === undefined) throw new Error('no relayhosts')
  const { faults, samples } = readForeignGrants(format, file(`${'x'.repeat(500)}\n`.repeat(30)), times)
  expect(faults).toBe(30)
  expect(samples.map(({ n }) => n)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  expect(samples[0]?.text).toHaveLength(80)
})

test('the directory of relay-ctrl: name, time and content of each file', () => {
  const directory = `${path}/allow`
  mkdirSync(`${directory}/192.0.2.11`, { recursive: true })
  writeFileSync(`${directory}/192.0.2.9`, 'USER=ann\0DOMAIN=example.org\0')
  writeFileSync(`${directory}/lock`, '')
  for (const name of ['192.0.2.9', 'lock']) utimesSync(`${directory}/${name}`, seconds - 30, seconds - 30)
  expect(read('relay-ctrl', directory)).toEqual({ found: [['192.0.2.9', 30, 'ann@example.org']], faults: 2 })
})

describeWith([command('db_dump', 'db-util'), command('db_load', 'db-util')], 'Berkeley DB files', () => {
  /** A real database file with these records. */
  function database(type: 'hash' | 'btree', records: readonly (readonly [string, string])[]): string {
    const target = `${path}/${type}.${records.length}.db`
    const input = records.map(([key, value]) => `${key}\n${value}\n`).join('')
    execFileSync('db_load', ['-T', '-t', type, target], { input })
    return target
  }

  test('of pop-before-smtp: a hash of addresses without times', () => {
    const records = [
      ['192.0.2.9', 'ok'],
      ['192.0.2.10\\00', 'ok\\00'],
      ['example.org', 'ok'],
    ] as const
    const { found, faults } = read('pop-before-smtp', database('hash', records))
    expect(found.sort()).toEqual([
      ['192.0.2.10', 0, ''],
      ['192.0.2.9', 0, ''],
    ])
    expect(faults).toBe(1)
  })

  test('of DRAC: a btree of the times at which grants end, limited to exp_time', () => {
    const ends = [
      ['192.0.2.1', `${seconds + 600}`],
      ['192.0.2.2', `${seconds - 60}`],
      ['192.0.2.3', `${seconds + 86_400}`],
      ['192.0.2.4', 'never'],
    ] as const
    expect(read('drac', database('btree', ends))).toEqual({
      found: [
        ['192.0.2.1', 1200, ''],
        ['192.0.2.2', 1860, ''],
        ['192.0.2.3', 0, ''],
      ],
      faults: 1,
    })
  })

  test('a file that is not a database is refused by name', () => {
    expect(() => read('drac', file('192.0.2.1\n'))).toThrow(`db_dump cannot read ${path}/file`)
    expect(() => read('drac', `${path}/missing`)).toThrow(`cannot read ${path}/missing: ENOENT`)
  })
})

test('a login that the database refuses is an invalid entry, so that the other logins are stored', () => {
  const line = (user: string): string => `192.0.2.7,${seconds - 60},${user}\n`
  expect(read('csv', file(`${line('x'.repeat(255))}${line('x'.repeat(256))}${line('a\0b')}`))).toEqual({
    found: [['192.0.2.7', 60, 'x'.repeat(255)]],
    faults: 2,
  })
})

test('a file of relay-ctrl that is removed meanwhile is an invalid entry', () => {
  mkdirSync(`${path}/removed`)
  symlinkSync('gone', `${path}/removed/192.0.2.7`)
  expect(read('relay-ctrl', `${path}/removed`)).toEqual({ found: [], faults: 1 })
})
