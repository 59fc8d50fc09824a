import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { describeWith, NETWORK_NAMESPACES } from '../../harness/runner/describe-with.ts'

const sources = new URL('../../../src/', import.meta.url)

/** Accepts a client with a link-local address, and prints the ends of the connection. */
const program = (engine: string): string => `
  import { connect } from 'node:net'
  import { holdListener } from '${new URL('process/listener.ts', sources)}'
  import { ${engine}Engine } from '${new URL(`sockets/${engine}-engine.ts`, sources)}'
  const held = await holdListener({ kind: 'tcp', host: '::', port: 0 }, 'test')
  ${engine}Engine.accept(held, { blocking: false, noDelay: true }, ({ ends }) => {
    console.log(JSON.stringify(ends))
    process.exit(0)
  })
  connect({ host: 'fe80::1%lo', port: held.address.port }).on('close', () => process.exit(1)).on('error', () => {}).resume()`

describeWith([NETWORK_NAMESPACES], 'a client with a link-local address', () => {
  test.each(['node', 'epoll'])('is accepted by the engine %s, and its address has no zone', engine => {
    const prepare = 'ip link set lo up && ip addr add fe80::1/64 dev lo nodad && exec "$@"'
    const node = [process.execPath, '--input-type=module', '-e', program(engine)]
    const { stdout, stderr, status } = spawnSync('unshare', ['-n', 'sh', '-c', prepare, 'sh', ...node], {
      encoding: 'utf8',
      timeout: 30_000,
    })
    expect(status, stderr).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ remoteIp: 'fe80::1', localIp: 'fe80::1' })
  })
})
