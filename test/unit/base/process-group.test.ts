import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { signalGroup } from '../../../src/base/supervised-child.ts'

test('a signal reaches each process of the group, and none if the group has ended', async () => {
  const leader = spawn('/bin/sh', ['-c', 'sleep 60 & echo "$!"; wait'], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  onTestFinished(() => void leader.kill('SIGKILL'))
  await once(createInterface(leader.stdout), 'line')
  // The pipe is closed when both processes have ended.
  const closed = once(leader.stdout, 'close')
  const ended = once(leader, 'exit')
  signalGroup(leader.pid, 'SIGTERM')
  expect(await ended).toEqual([null, 'SIGTERM'])
  await closed
  signalGroup(leader.pid, 'SIGTERM')
})

test('a process that could not be started gets no signal', () => {
  expect(() => signalGroup(undefined, 'SIGKILL')).not.toThrow()
})
