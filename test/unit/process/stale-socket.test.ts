import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { TemporaryFault, UsageFault } from '../../../src/base/errors.ts'
import { holdListener, openListener, removeStaleSocket } from '../../../src/process/listener.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const { path: directory, remove } = temporaryDirectory()
afterAll(remove)

test.each([
  ['below a file', () => writeFileSync(`${directory}/file`, ''), 'file/x.sock', /ENOTDIR/],
  ['below a link to itself', () => symlinkSync('loop', `${directory}/loop`), 'loop/x.sock', /ELOOP/],
  ['with a name that is too long', () => mkdirSync(`${directory}/long`), `long/${'x'.repeat(300)}`, /ENAMETOOLONG/],
])('a socket %s is a fault of the setting, and not of the program', async (_, prepare, name, reason) => {
  prepare()
  const address = { kind: 'unix', path: `${directory}/${name}` } as const
  const server = createServer()
  onTestFinished(() => void server.close())
  for (const fault of [openListener(server, address, 'authd.socket'), holdListener(address, 'authd.socket')]) {
    const error: unknown = await fault.catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(UsageFault)
    expect(error).toHaveProperty('message', expect.stringMatching(reason))
    expect(error).toHaveProperty('message', expect.stringMatching(/^authd\.socket: .*: change authd\.socket$/))
  }
})

test('a socket without a server is removed, and one with a server is in use', async () => {
  const path = `${directory}/left.sock`
  const bind = 'require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))'
  spawnSync(process.execPath, ['-e', bind, path])
  expect(existsSync(path)).toBe(true)
  await removeStaleSocket(path, 'authd.socket')
  expect(existsSync(path)).toBe(false)
  const server = createServer()
  onTestFinished(() => void server.close())
  await openListener(server, { kind: 'unix', path }, 'authd.socket')
  await expect(removeStaleSocket(path, 'authd.socket')).rejects.toThrow(TemporaryFault)
  expect(existsSync(path)).toBe(true)
})
