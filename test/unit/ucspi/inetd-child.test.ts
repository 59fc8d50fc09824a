import { closeSync, openSync, readFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { InetdProgram } from '../../../src/ucspi/inetd-child.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())

/** Starts `env` on this thread with such a block; returns its output on the descriptor. */
async function environmentOf(program: InetdProgram, without: number, ...strings: string[]): Promise<string> {
  const path = `${directory.path}/out`
  const out = openSync(path, 'w')
  const pid = program.startHere(out, Buffer.from(strings.map(string => `${string}\0`).join('')), without)
  closeSync(out)
  const ended = new Map<number, unknown>()
  await eventually('the program has ended', () => {
    InetdProgram.reapStarted((child, ending) => ended.set(child, ending))
    return ended.size === 1
  })
  expect([...ended]).toEqual([[pid, { code: 0 }]])
  return readFileSync(path, 'utf8')
}

test('a start on this thread has its own variables, without the removed ones', async () => {
  const program = new InetdProgram('/usr/bin/env', ['env'], ['A=1', 'AB=2', 'B=3'])
  expect(await environmentOf(program, 0)).toBe('A=1\nAB=2\nB=3\n')
  expect(await environmentOf(program, 0, 'C=4')).toBe('A=1\nAB=2\nB=3\nC=4\n')
  expect(await environmentOf(program, 2, 'A', 'B', 'B=5', 'C=')).toBe('AB=2\nB=5\nC=\n')
  expect(await environmentOf(program, 1, 'UNKNOWN')).toBe('A=1\nAB=2\nB=3\n')
})

test('a block with fewer names than announced starts nothing', () => {
  const program = new InetdProgram('/usr/bin/env', ['env'], [])
  expect(() => program.startHere(0, Buffer.from('A\0'), 2)).toThrow(RangeError)
})
