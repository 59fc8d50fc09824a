import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { watchSocketFile } from '../../../src/process/unix-sockets.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

describe('a Unix socket of a program', () => {
  const { path: directory, remove } = temporaryDirectory()
  const path = `${directory}/socket`
  const server = createServer()
  beforeEach(async () => {
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
    expect(await watch.gone).toContain(path)
  })
})
