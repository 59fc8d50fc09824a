import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = new URL('../../../', import.meta.url).pathname
const { path, remove } = temporaryDirectory()
afterAll(remove)

const report = (passed: number) =>
  JSON.stringify({ numPassedTests: passed, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 })

/** Writes a program that scripts/test.ts calls. */
function program(name: string, text: string): void {
  writeFileSync(`${path}/bin/${name}`, `#!/bin/sh\n${text}\n`)
  chmodSync(`${path}/bin/${name}`, 0o755)
}

/** Runs the checks in a checkout that has the report of an earlier run with 7 tests. */
function runChecks(vitest: string) {
  writeFileSync(`${path}/node_modules/.cache/auth-relay/tests.json`, report(7))
  program('vitest', vitest)
  return spawnSync(process.execPath, [`${path}/scripts/test.ts`], {
    cwd: path,
    encoding: 'utf8',
    env: { PATH: `${path}/bin:/usr/bin:/bin` },
  })
}

beforeAll(() => {
  for (const directory of ['bin', 'scripts', 'test/harness/hosts', 'node_modules/.cache/auth-relay'])
    mkdirSync(`${path}/${directory}`, { recursive: true })
  for (const name of ['test.ts', 'closing-line.ts', 'debian-packages.ts'])
    copyFileSync(`${root}scripts/${name}`, `${path}/scripts/${name}`)
  writeFileSync(`${path}/package.json`, '{ "type": "module" }\n')
  writeFileSync(`${path}/test/harness/hosts/debian-packages.txt`, '')
  for (const name of ['node', 'tsc', 'biome', 'knip', 'cspell']) program(name, 'exit 0')
})

test('the last line has the counts of this run', () => {
  const { status, stdout } = runChecks(`echo '${report(9)}' >node_modules/.cache/auth-relay/tests.json`)
  expect(stdout).toMatch(/\n9 passed, 0 failed\n$/)
  expect(status).toBe(0)
})

test('a run of the tests that ends without a report is a failure, and no earlier report counts', () => {
  const { status, stdout, stderr } = runChecks('exit 1')
  expect(stdout).toContain('FAILED: tests\n')
  expect(stdout).toMatch(/\nno test was counted, because vitest wrote no report\n$/)
  expect(stderr).toBe('')
  expect(status).toBe(1)
})

test('a run of the tests that ends with status 0 and without a report is a failure', () => {
  const { status, stdout } = runChecks('exit 0')
  expect(stdout).toContain('FAILED: test report\n')
  expect(status).toBe(1)
})

test('a check that fails or cannot start is named at the end, with its output, and all others run', () => {
  program('knip', 'echo an unused file; exit 1')
  program('cspell', '')
  chmodSync(`${path}/bin/cspell`, 0o644)
  const { status, stdout } = runChecks(`echo '${report(9)}' >node_modules/.cache/auth-relay/tests.json`)
  expect(stdout).toMatch(/\nan unused file\nFAILED: unused \(/)
  for (const name of ['types', 'lint', 'rooms', 'dependencies', 'commits', 'prose', 'tests'])
    expect(stdout).toContain(`\nok: ${name} (`)
  expect(stdout).toMatch(/\nFAILED: unused\nFAILED: spelling\n9 passed, 0 failed\n$/)
  expect(status).toBe(1)
})
