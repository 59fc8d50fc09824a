import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'

const RUN = new URL('../../../bench/run.ts', import.meta.url).pathname
const bench = (...args: string[]) => spawnSync(process.execPath, [RUN, ...args], { encoding: 'utf8' })

test('npm run bench prints its plan and the list of benches', () => {
  const { status, stdout } = bench('--help')
  expect(status).toBe(0)
  expect(stdout).toMatch(/^npm run bench -- \[BENCH \.\.\.\]/)
  expect(stdout).toMatch(/^Benches: pop3s growth pop3d tls gate gates authd grants scale$/m)
})

test.each([
  [['pop3'], 'no bench pop3\n'],
  [['--rounds', '0'], 'rounds must be a number from 1 on\n'],
  [['--round', '3'], "Unknown option '--round'"],
])('%j runs nothing', (args, fault) => {
  const { status, stderr, stdout } = bench(...args)
  expect(status).toBe(100)
  expect(stderr).toContain(fault)
  expect(stderr).toContain('npm run bench -- [BENCH ...]')
  expect(stdout).toBe('')
})
