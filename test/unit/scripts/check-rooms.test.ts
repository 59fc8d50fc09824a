import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '../../..')
const copies: string[] = []
afterAll(() => {
  for (const copy of copies) rmSync(copy, { recursive: true, force: true })
})

/** A copy of the tree in which a test can break a rule. */
function copyOfTree(): string {
  const copy = mkdtempSync(join(tmpdir(), 'rooms-'))
  copies.push(copy)
  for (const path of ['src', 'tsconfig.json', '.dependency-cruiser.cjs', 'package.json'])
    cpSync(join(root, path), join(copy, path), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  return copy
}

function check(copy: string): { readonly status: number | null; readonly broken: readonly string[] } {
  const { status, stderr, stdout } = spawnSync(process.execPath, [join(root, 'scripts/checks/rooms.ts')], {
    cwd: copy,
    encoding: 'utf8',
  })
  const count = Number(/(\d+) violations/.exec(stdout)?.[1])
  const broken = stderr.split('\n').filter(line => line !== '')
  expect(broken, stdout).toHaveLength(count)
  return { status, broken }
}

const FOREIGN = `'../grants/grant-policy.ts'`
const SQL = 'SQL text belongs to grants and sql/'
const RE_EXPORT = 'no re-export across rooms'
const EXIT = 'process.exit belongs to main.ts, ucspi and process'
const INTERNALS = 'internals of the runtime belong to src/base/node-internals.ts'
const PURE = 'pop3, smtp, wire and syslog are pure: no async, no clock, no I/O'
const TYPE_NAME = 'another file exports a type of the same name'
const PATH = 'an import must name its module, because the import rule cannot follow a computed path'

/** Each in a separate file: folder, code, and the rule that its line must violate. */
const BREAKS: readonly (readonly [what: string, folder: string, code: string, rule: string])[] = [
  ['a room of the same floor', 'src/tunnel', `import '../grants/grant-policy.ts'`, 'room-tunnel'],
  ['a room of a higher floor', 'src/wire', `import '../settings/settings.ts'`, 'room-wire'],
  ['a program in a program', 'src/authd', `import '../wrap/main.ts'`, 'room-authd'],
  [
    'a type alone',
    'src/wire',
    `import type { GrantPolicy } from ${FOREIGN}; export type A = GrantPolicy[]`,
    'room-wire',
  ],
  ['a type by its path', 'src/wire', `export type A = import(${FOREIGN}).GrantPolicy[]`, 'room-wire'],
  ['an import at run time', 'src/wire', `export const a = () => import(${FOREIGN})`, 'room-wire'],
  ['an export from elsewhere', 'src/authd', `export { grantPolicy } from ${FOREIGN}`, RE_EXPORT],
  ['everything from elsewhere', 'src/authd', `export * from ${FOREIGN}`, RE_EXPORT],
  ['an import that is exported', 'src/authd', `import * as policy from ${FOREIGN}; export { policy }`, RE_EXPORT],
  ['an import under another name', 'src/authd', `import * as p from ${FOREIGN}; export const policy = p`, RE_EXPORT],
  ['a member of an import', 'src/authd', `import * as p from ${FOREIGN}; export const x = p.grantPolicy`, RE_EXPORT],
  ['an import as the default', 'src/authd', `import * as p from ${FOREIGN}; export default p`, RE_EXPORT],
  [
    'a type under another name',
    'src/authd',
    `import type { GrantPolicy as G } from ${FOREIGN}; export type P = G`,
    RE_EXPORT,
  ],
  ['an import under a local name', 'src/authd', `import * as p from ${FOREIGN}; const x = p; export { x }`, RE_EXPORT],
  [
    'a type under a local name',
    'src/authd',
    `import type { GrantPolicy as G } from ${FOREIGN}; type P = G; export type { P }`,
    RE_EXPORT,
  ],
  ['an import in parentheses', 'src/authd', `import * as p from ${FOREIGN}; export const x = (p)`, RE_EXPORT],
  [
    'an import with a type',
    'src/authd',
    `import * as p from ${FOREIGN}; export const x = p satisfies object`,
    RE_EXPORT,
  ],
  [
    'a type as an empty interface',
    'src/authd',
    `import type { GrantPolicy as G } from ${FOREIGN}; export interface P extends G {}`,
    RE_EXPORT,
  ],
  [
    'an import as a member',
    'src/authd',
    `import { grantPolicy } from ${FOREIGN}; export const a = { grantPolicy }`,
    RE_EXPORT,
  ],
  ['a statement in one line', 'src/authd', `export const a = 'SELECT x FROM y'`, SQL],
  ['a statement over lines', 'src/authd', 'export const a = `\nSELECT x\n  FROM y\n`', SQL],
  ['a statement that begins with a comment', 'src/authd', 'export const a = `-- all\nDELETE\nFROM y`', SQL],
  ['a statement in small letters', 'src/authd', `export const a = 'update y set x = 1'`, SQL],
  ['a statement with one capital', 'src/authd', `export const a = 'Select x from y'`, SQL],
  ['a setting of a transaction', 'src/authd', `export const a = 'SET LOCAL synchronous_commit = off'`, SQL],
  ['a statement in pieces', 'src/authd', `export const a = 'INSERT ' + 'INTO ' + 'y VALUES (1)'`, SQL],
  ['a statement with a computed table', 'src/authd', 'export const a = (t: string) => `DELETE FROM \u0024{t}`', SQL],
  ['a statement in joined parts', 'src/authd', `export const a = ['select *', 'from y'].join(' ')`, SQL],
  ['a statement of definition', 'src/auth-relay', `export const a = 'CREATE TABLE y (x int)'`, SQL],
  ['process.exit', 'src/authd', `export const a = () => process.exit(1)`, EXIT],
  ['process.exit in brackets', 'src/authd', `export const a = () => process['exit'](1)`, EXIT],
  ['exit taken from process', 'src/authd', `export const a = () => { const { exit } = process; exit(1) }`, EXIT],
  ['process as an import', 'src/authd', `import { exit } from 'node:process'; export const a = () => exit(1)`, EXIT],
  ['an internal property', 'src/tunnel', `export const a = (s: object) => Reflect.get(s, '_handle')`, INTERNALS],
  [
    'an internal event',
    'src/tunnel',
    `export const a = (s: NodeJS.EventEmitter) => s.on('_tlsError', () => {})`,
    INTERNALS,
  ],
  ['async in a pure room', 'src/pop3', `export const a = async () => 1`, PURE],
  ['the clock in the room of SMTP', 'src/smtp', `export const a = () => performance.now()`, PURE],
  ['the time in a pure room', 'src/wire', `export const a = () => Date.now()`, PURE],
  ['the time as a date', 'src/syslog', `export const a = () => new Date()`, PURE],
  ['chance in a pure room', 'src/wire', `export const a = () => crypto.randomUUID()`, PURE],
  ['the time as a text', 'src/wire', `export const a = () => Date()`, PURE],
  ['the time taken from Date', 'src/pop3', `export const a = () => { const { now } = Date; return now() }`, PURE],
  ['the time in brackets', 'src/smtp', `export const a = () => Date['now']()`, PURE],
  ['a timer in a pure room', 'src/syslog', `export const a = () => setTimeout(() => {}, 1)`, PURE],
  ['a type with the name of another type', 'src/wire', 'export type BrokenTwin = string', TYPE_NAME],
  ['an interface with the name of a type', 'src/authd', 'export interface BrokenTwin { x: number }', TYPE_NAME],
  ['a class with the name of a type', 'src/base', 'export class BrokenTwin {}', TYPE_NAME],
  ['a file in a pure room', 'src/pop3', `import 'node:fs'`, 'pure-rooms'],
  ['a computed path', 'src/authd', `export const a = (path: string) => import(path)`, PATH],
  ['require', 'src/authd', `import { createRequire } from 'node:module'; createRequire('/')('x')`, PATH],
  ['pg', 'src/grants', `import 'pg'`, 'only-database-imports-pg'],
  ['koffi', 'src/process', `import 'koffi'`, 'only-native-function-imports-koffi'],
]

describe('a violated rule', () => {
  let broken: readonly string[] = []
  beforeAll(() => {
    const copy = copyOfTree()
    for (const [index, [, folder, code]] of BREAKS.entries())
      writeFileSync(join(copy, folder, `broken-${index}-here.ts`), `${code}\n`)
    // A circle of two files.
    writeFileSync(join(copy, 'src/authd/broken-circle-a.ts'), `import './broken-circle-b.ts'\n`)
    writeFileSync(join(copy, 'src/authd/broken-circle-b.ts'), `import './broken-circle-a.ts'\n`)
    writeFileSync(join(copy, 'src/authd/broken-long.ts'), 'export {}\n'.repeat(500))
    writeFileSync(join(copy, 'src/authd/broken-subject.ts'), 'export const a = 1\n\n/** One. */\nexport const b = 2\n')
    for (let index = 0; index < 16; index += 1)
      writeFileSync(join(copy, `src/wrap/exec/broken-many-${index}.ts`), 'export {}\n')
    const { status, broken: found } = check(copy)
    expect(status).toBe(1)
    broken = found
  }, 120_000)

  test.each(BREAKS.map(([what, , , rule], index) => ({ what, rule, file: `broken-${index}-here.ts` })))(
    '$what: $rule',
    ({ file, rule }) => {
      const lines = broken.filter(line => line.includes(file))
      expect(lines).not.toEqual([])
      expect(
        lines.some(line => line.endsWith(`: ${rule}`)),
        lines.join('\n'),
      ).toBe(true)
    },
  )

  test('the files without a violation are not named', () => {
    // `npm test` runs the check on the tree itself.
    expect(broken.filter(line => !/broken-|: \d+ files, 15 at most$/.test(line))).toEqual([])
  })

  test('a circle: no-circular', () => {
    expect(broken.some(line => line.includes('broken-circle-a.ts') && line.endsWith(': no-circular'))).toBe(true)
  })

  test('a file with too many lines', () => {
    expect(broken).toContain('src/authd/broken-long.ts: 500 lines, 499 at most')
    expect(broken).toContain(
      'src/authd/broken-subject.ts: a file with several exports begins with a sentence that names their subject',
    )
  })

  test('a folder with too many files', () => {
    expect(broken).toContainEqual(expect.stringMatching(/^src\/wrap\/exec: \d+ files, 15 at most$/))
  })
})

test('a room that the check does not read is reported', { timeout: 120_000 }, () => {
  const copy = copyOfTree()
  const file = join(copy, '.dependency-cruiser.cjs')
  const rules = readFileSync(file, 'utf8')
  writeFileSync(file, rules.replace('options: {', `options: { exclude: '^src/pop3/',`))
  const { status, broken } = check(copy)
  expect(status).toBe(1)
  expect(broken).toContainEqual(
    expect.stringMatching(/^only \d+ of \d+ modules of src\/ were read: the rules were not checked for the others$/),
  )
})

test('the table refuses a floor that imports upwards', { timeout: 120_000 }, () => {
  const copy = copyOfTree()
  const file = join(copy, '.dependency-cruiser.cjs')
  writeFileSync(
    file,
    readFileSync(file, 'utf8').replace(`syslog: ['wire', 'base']`, `syslog: ['wire', 'base', 'settings']`),
  )
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts/checks/rooms.ts')], {
    cwd: copy,
    encoding: 'utf8',
  })
  expect(status).not.toBe(0)
  expect(stderr).toContain('src/syslog/ may import settings, which is not on a lower floor')
})
