import { once } from 'node:events'
import { renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { watchSocketFile } from '../../../src/process/unix-sockets.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

describe('a Unix socket of a program', () => {
  let { path: directory, remove } = temporaryDirectory()
  let path = ''
  const server = createServer()
  beforeEach(async () => {
    remove()
    ;({ path: directory, remove } = temporaryDirectory())
    path = `${directory}/socket`
    server.listen(path)
    await once(server, 'listening')
  })
  afterEach(() => {
    server.close()
    remove()
  })

  test('counts as missing when it is replaced', async () => {
    const watch = watchSocketFile(path)
    rmSync(path)
    writeFileSync(path, 'something else')
    expect(await watch.missing).toContain(path)
  })

  test('counts as missing when its directory has become something else', async () => {
    const watch = watchSocketFile(path)
    renameSync(directory, `${directory}.away`)
    try {
      symlinkSync(directory, directory)
      expect(await watch.missing).toContain(path)
    } finally {
      rmSync(directory)
      renameSync(`${directory}.away`, directory)
    }
  })
})
