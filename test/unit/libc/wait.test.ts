import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { posixSpawn, waitFor } from '../../../src/libc/child-process.ts'

const start = (script: string) =>
  posixSpawn({ file: '/bin/sh', argv: ['sh', '-c', script], environment: ['PATH=/usr/bin:/bin'], descriptors: [] })

test('children of the runtime and of posixSpawn end together, and each is reaped by its own waiter', async () => {
  const theirs = Array.from({ length: 20 }, (_, i) => once(spawn('/bin/sh', ['-c', `exit ${i}`]), 'exit'))
  const ours = Array.from({ length: 20 }, (_, i) => waitFor(start(`exit ${i}`)))
  expect((await Promise.all(theirs)).map(([code]) => code)).toEqual(Array.from({ length: 20 }, (_, i) => i))
  expect(await Promise.all(ours)).toEqual(Array.from({ length: 20 }, (_, i) => ({ code: i })))
})

test('the wait for a process that is not a child is an error', async () => {
  await expect(waitFor(1)).rejects.toThrow(expect.objectContaining({ code: 'ECHILD' }))
})
