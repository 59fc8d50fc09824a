import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { isStoppedProcess } from '../../../src/base/supervised-child.ts'
import { endingFields, startWorker, type WorkerEnding } from '../../../src/process/worker-process.ts'
import { eventually } from '../../harness/eventually.ts'
import { withFreeDescriptors } from '../../harness/hosts/scarce-descriptors.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

/** The end of a worker that runs this script. */
async function endingOf(script: string): Promise<WorkerEnding> {
  const directory = temporaryDirectory()
  try {
    const file = `${directory.path}/worker.mjs`
    writeFileSync(file, script)
    return await startWorker(file, [], []).ended
  } finally {
    directory.remove()
  }
}

test('a worker that is stopped before it has loaded is killed', { timeout: 120_000 }, async () => {
  const ending = await endingOf("process.kill(process.pid, 'SIGSTOP')\n")
  expect(ending).toEqual({ code: null, signal: 'SIGKILL', hung: true })
})

test('a worker that closes its channel and does not end is killed', { timeout: 120_000 }, async () => {
  const ending = await endingOf("import { closeSync } from 'node:fs'\ncloseSync(3)\nsetInterval(() => {}, 1_000)\n")
  expect(ending).toEqual({ code: null, signal: 'SIGKILL', hung: false })
})

test('a stopped process differs from one that runs or has ended', async () => {
  const child = spawn('sleep', ['600'])
  try {
    await once(child, 'spawn')
    expect(isStoppedProcess(child.pid)).toBe(false)
    child.kill('SIGSTOP')
    await eventually('sleep is stopped', () => isStoppedProcess(child.pid))
    child.kill('SIGCONT')
    await eventually('sleep continues', () => !isStoppedProcess(child.pid))
    child.kill('SIGSTOP')
  } finally {
    child.kill('SIGKILL')
  }
  await once(child, 'exit')
  expect(isStoppedProcess(child.pid)).toBe(false)
  expect(isStoppedProcess(undefined)).toBe(false)
})

test('a worker that cannot be started for want of descriptors has ended, with the reason', async () => {
  const { channel, ended } = withFreeDescriptors(0, () => startWorker('/nonexistent.mjs', [], []))
  channel.send({ type: 'settings' })
  const ending = await ended
  expect(ending).toMatchObject({ code: null, signal: null, hung: false })
  expect(endingFields(ending).reason).toMatchObject({ code: 'EMFILE' })
})
