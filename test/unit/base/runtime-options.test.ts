import { expect, test } from 'vitest'
import { runtimeOptions } from '../../../src/base/inspector.ts'

const FLAG = '--disable-sigusr1'
const newer = new Set([FLAG])
const older = new Set<string>()

test.each([
  [[], newer, [FLAG]],
  [[FLAG], newer, [FLAG]],
  [['--import', 'tsx'], newer, [FLAG, '--import', 'tsx']],
  [['--inspect', '--inspect=127.0.0.1:0', '--inspect-brk', '--inspect-wait=1'], newer, [FLAG]],
  [['--max-old-space-size=300', '--inspect-port=0'], older, ['--max-old-space-size=300', '--inspect-port=0']],
])('options of a process started with %j', (own, known, expected) => {
  expect(runtimeOptions(own, known)).toEqual(expected)
})

test('the Node.js of the programs supports the option', () => {
  expect(runtimeOptions([])).toEqual([FLAG])
})
