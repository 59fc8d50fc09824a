import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { subjectFault } from '../../scripts/checks/commits.ts'
import { debianChangelog } from '../../scripts/debian/changelog.ts'
import { checkRelease } from '../../scripts/release/check-release.ts'
import { prepareRelease, releaseSubject } from '../../scripts/release/prepare-release.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const root = new URL('../..', import.meta.url).pathname
const DATE = new Date('2026-11-26T12:00:00Z')

let checkout: ReturnType<typeof temporaryDirectory>
const git = (...words: readonly string[]) => {
  const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.org']
  return execFileSync('git', [...identity, ...words], { cwd: checkout.path, encoding: 'utf8' })
}
const write = (name: string, text: string) => writeFileSync(`${checkout.path}/${name}`, text)
const read = (name: string) => readFileSync(`${checkout.path}/${name}`, 'utf8')
const commit = () => {
  git('add', '-A')
  git('commit', '-qm', 'a change', '--allow-empty')
}

beforeEach(() => {
  checkout = temporaryDirectory()
  git('init', '-q')
  for (const name of ['docs/man', 'sql']) cpSync(`${root}${name}`, `${checkout.path}/${name}`, { recursive: true })
  for (const name of ['docs/LOG-EVENTS.md', 'docs/WIRE.md', 'deploy/auth-relay.schema.json'])
    cpSync(`${root}${name}`, `${checkout.path}/${name}`)
  mkdirSync(`${checkout.path}/docs/decisions`)
  write(
    'package.json',
    '{\n  "name": "auth-relay",\n  "version": "1.0.0-dev",\n  "bin": { "popup": "bin/launch" }\n}\n',
  )
  const dependency = '    "node_modules/pg": {\n      "version": "8.0.0"\n    }'
  const own = '    "": {\n      "name": "auth-relay",\n      "version": "1.0.0-dev"\n    }'
  write('package-lock.json', `{\n  "version": "1.0.0-dev",\n  "packages": {\n${own},\n${dependency}\n  }\n}\n`)
  write(
    'CHANGELOG.md',
    '# Changes\n\n## Pending\n\n- A change of popup\n  in two lines.\n- A change of wrap.\n\n## 0.9.0\n\n- Old.\n',
  )
  write('README.md', '[operating](docs/OPERATING.md), [elsewhere](https://example.org/x)\n')
  write('CONTRIBUTING.md', 'Welcome.\n')
  write('docs/OPERATING.md', '# Operating\n')
  commit()
})
afterEach(() => checkout.remove())

test('the pending changes become the version, and then no check refuses the release', async () => {
  prepareRelease(checkout.path, '1.0.0', DATE)
  expect(read('CHANGELOG.md')).toContain('## Pending\n\n## 1.0.0 (2026-11-26)\n\n- A change of popup')
  expect(read('package.json')).toContain('"version": "1.0.0"')
  expect(read('package-lock.json').match(/"version": "[^"]*"/g)).toEqual([
    '"version": "1.0.0"',
    '"version": "1.0.0"',
    '"version": "8.0.0"',
  ])
  expect(await checkRelease(checkout.path)).toEqual([
    'the tree is dirty: commit or remove CHANGELOG.md, package-lock.json, package.json',
  ])
  commit()
  expect(await checkRelease(checkout.path)).toEqual([])
  git('tag', 'v1.0.0')
  expect(await checkRelease(checkout.path)).toEqual(['v1.0.0 is already released: choose another version'])
})

test('the commit of a release has a subject that the check of commits accepts', () => {
  expect(subjectFault(releaseSubject('1.0.0'))).toBeUndefined()
})

test('a pending changelog and an invalid version are refused', async () => {
  expect(await checkRelease(checkout.path)).toEqual([
    'package.json: 1.0.0-dev is not a version of a release: node scripts/release.ts prepare VERSION',
    'CHANGELOG.md: has no changes of 1.0.0-dev: write them below "## 1.0.0-dev"',
    'CHANGELOG.md: 2 changes are still pending: node scripts/release.ts prepare VERSION',
  ])
  expect(() => prepareRelease(checkout.path, '1.0', DATE)).toThrow(
    '1.0 is not a version of a release: write it as 1.2.3',
  )
  prepareRelease(checkout.path, '1.0.0', DATE)
  expect(() => prepareRelease(checkout.path, '1.0.1', DATE)).toThrow(/nothing is pending/)
})

test('missing documents are refused: a manual, a linked page, and a page that is older than the code', async () => {
  prepareRelease(checkout.path, '1.0.0', DATE)
  rmSync(`${checkout.path}/docs/man/popup.8`)
  rmSync(`${checkout.path}/docs/OPERATING.md`)
  rmSync(`${checkout.path}/CONTRIBUTING.md`)
  write('docs/man/auth-relay.8', 'old\n')
  write('docs/LOG-EVENTS.md', 'old\n')
  write('deploy/auth-relay.schema.json', '{}\n')
  write('sql/pop3authd.sql', 'old\n')
  commit()
  expect(await checkRelease(checkout.path)).toEqual([
    'docs/man/popup.8: is missing: write the manual page of popup',
    'README.md: there is no docs/OPERATING.md',
    'CONTRIBUTING.md: is missing',
    'docs/man/auth-relay.8: does not match the code: node scripts/generate/man-pages.ts',
    'docs/LOG-EVENTS.md: does not match the code: node scripts/generate/log-events.ts',
    'deploy/auth-relay.schema.json: does not match the code: node scripts/generate/settings-schema.ts',
    'sql/pop3authd.sql: does not match the migrations: node scripts/generate/pop3authd-sql.ts',
  ])
})

test('the Debian changelog: lines of at most 80 columns, and the date in the format of the Policy', () => {
  const change = `${'word '.repeat(30)}end.`
  const text = debianChangelog('1.0.0-1', [change, 'Short.'], DATE)
  const [changes = ''] = text.split('\n -- ')
  expect(Math.max(...changes.split('\n').map(line => line.length))).toBeLessThanOrEqual(80)
  expect(text).toContain(
    '\n  * Short.\n\n -- The auth-relay maintainers <auth-relay@example.org>  Thu, 26 Nov 2026 12:00:00 +0000\n',
  )
})
