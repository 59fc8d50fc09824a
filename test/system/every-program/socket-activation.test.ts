import { closeSync, existsSync, openSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { socketName } from '../../../src/libc/sockets.ts'
import { eventually } from '../../harness/eventually.ts'
import { freePort } from '../../harness/free-port.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { command, describeWith } from '../../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const DAEMON = new URL('daemon-for-tests.ts', import.meta.url).pathname

/** The octets that a server sends to a new connection. */
const readFrom = async (...where: readonly string[]): Promise<string> => {
  const { lines } = await run(['curl', '-s', '-m', '10', '--http0.9', ...where])
  return lines.join('\n')
}

describeWith(
  [command('systemd-socket-activate', 'systemd'), command('curl')],
  'sockets from the service manager',
  () => {
    let directory: ReturnType<typeof temporaryDirectory>
    const programs: Program[] = []
    beforeEach(() => {
      directory = temporaryDirectory()
    })
    afterEach(async () => {
      for (const program of programs.splice(0)) await program.stop()
      directory.remove()
    })

    const activate = (sockets: readonly string[], port: number, path: string): Program => {
      const words = ['systemd-socket-activate', ...sockets.flatMap(socket => ['-l', socket])]
      const program = new Program('sample', [...words, process.execPath, DAEMON, 'handed', `${port}`, path])
      programs.push(program)
      return program
    }

    test('a client that connected before the daemon started is served; the socket survives the daemon', async () => {
      const port = await freePort()
      const path = `${directory.path}/held.sock`
      const daemon = activate([`127.0.0.1:${port}`, path], port, path)
      await eventually('the service manager listens', () => existsSync(path))
      expect(await readFrom(`telnet://127.0.0.1:${port}`)).toBe(`served by ${daemon.pid}`)
      expect(await daemon.waitForLine(/^sample ready/)).toBe(
        `sample ready {"bound":{"kind":"tcp","host":"127.0.0.1","port":${port}},"held":true}`,
      )
      expect(await readFrom('--unix-socket', path, 'http://localhost')).toBe('from the held one')
      expect(daemon.lines.join('\n')).not.toContain('socket_unused')
      expect(await daemon.stop()).toEqual({ code: 0, signal: null })
      expect(existsSync(path)).toBe(true)
    })

    test('a socket that no setting names is logged, and the settings apply', async () => {
      const [port, other] = [await freePort(), await freePort()]
      const daemon = activate([`127.0.0.1:${other}`], port, `${directory.path}/own.sock`)
      await daemon.waitForLine(/Listening on/)
      const poke = run(['curl', '-s', '-m', '10', `telnet://127.0.0.1:${other}`])
      const ready = await daemon.waitForLine(/^sample ready/)
      expect(ready).toContain('"held":false')
      expect(daemon.lines.find(line => line.includes('event=socket_unused'))).toContain(`address=127.0.0.1:${other} `)
      expect(await readFrom(`telnet://127.0.0.1:${port}`)).toBe(`served by ${daemon.pid}`)
      await daemon.stop()
      await poke
    })
  },
)

test('socketName: a descriptor that is not a socket has no name', () => {
  const file = openSync('/dev/null', 'r')
  expect(socketName(file)).toBeUndefined()
  closeSync(file)
  expect(() => socketName(9999)).toThrow(/getsockname/)
})
