import { existsSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { holdListener } from '../../../src/process/listener.ts'
import { takeDescriptors } from '../../harness/hosts/scarce-descriptors.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())

test('a socket that could not be held for want of descriptors can be held later', async () => {
  const path = `${directory.path}/owner.sock`
  // One descriptor is enough to listen, and none is left for the copy.
  const giveBack = takeDescriptors(1)
  try {
    await expect(holdListener({ kind: 'unix', path }, 'run_dir')).rejects.toMatchObject({ code: 'EMFILE' })
  } finally {
    giveBack()
  }
  const held = await holdListener({ kind: 'unix', path }, 'run_dir')
  expect(existsSync(path)).toBe(true)
  held.release()
})
