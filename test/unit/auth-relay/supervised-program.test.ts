import { expect, onTestFinished, test } from 'vitest'
import { SupervisedProgram } from '../../../src/auth-relay/stack/supervised-program.ts'
import { createLog } from '../../../src/base/log.ts'

test('the fault of a program that the system cannot start names the reason', async () => {
  const { execPath } = process
  onTestFinished(() => {
    process.execPath = execPath
  })
  process.execPath = '/nonexistent/node'
  const times = { readyWithin: 30_000, stopWithin: 1_000 }
  const spec = { name: 'popup', script: '/nonexistent/popup.js', args: [], env: {}, ...times }
  const program = new SupervisedProgram(spec, createLog('test'), () => {})
  await expect(program.start()).rejects.toThrow('popup: cannot be started: spawn /nonexistent/node ENOENT')
})
