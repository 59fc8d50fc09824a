import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const SCRIPT = new URL('../../../deploy/debian/postinst', import.meta.url)
const { path, remove } = temporaryDirectory()
afterAll(remove)

function program(name: string, text: string): void {
  writeFileSync(`${path}/bin/${name}`, `#!/bin/sh\n${text}\n`)
  chmodSync(`${path}/bin/${name}`, 0o755)
}

beforeAll(() => {
  mkdirSync(`${path}/bin`)
  mkdirSync(`${path}/etc`)
  mkdirSync(`${path}/run`)
  mkdirSync(`${path}/systemd`)
  for (const name of ['systemd-sysusers', 'systemd-tmpfiles', 'systemctl', 'chown']) program(name, 'exit 0')
  program('auth-relay-setup-database', 'exit "$DATABASE"')
  program('deb-systemd-invoke', 'echo "$*"')
})

/** Upgrades the package on a host whose database has this state. */
function upgrade(database: number) {
  const text = readFileSync(SCRIPT, 'utf8')
    .replaceAll('/etc/auth-relay', `${path}/etc/auth-relay`)
    .replaceAll('/run/systemd/system', `${path}/systemd`)
    .replaceAll('/run/auth-relay', `${path}/run`)
  const env = { PATH: `${path}/bin:/usr/bin:/bin`, DATABASE: `${database}` }
  const words = ['-c', text, 'postinst', 'configure', '1.0']
  const { status, stdout, stderr } = spawnSync('sh', words, { encoding: 'utf8', env })
  return { status, restarted: stdout.trim().split('\n'), stderr }
}

const restarts = (...parts: readonly string[]) => parts.map(part => `try-restart auth-relay-${part}.service`)

test('an upgrade restarts every running program when the database has the schema', () => {
  const all = restarts('authd', 'popup', 'sslwrap', 'wrap', 'status-page', 'alerts')
  expect(upgrade(0)).toEqual({ status: 0, restarted: all, stderr: '' })
})

test('an upgrade restarts a socket unit that listens at the former path of usage events', () => {
  const others = restarts('popup', 'sslwrap', 'wrap', 'status-page', 'alerts')
  writeFileSync(`${path}/run/uses.sock`, '')
  expect(upgrade(0).restarted).toEqual(['try-restart auth-relay-authd.socket', ...others])
  expect(readdirSync(`${path}/run`)).toEqual([])
})

test.each([
  ['a database elsewhere', 1, /^ {2}auth-relay migrate --user postgres --password-file FILE$/m],
  ['a server of this host that does not answer', 111, /^ {2}auth-relay-setup-database && systemctl try-restart /m],
] as const)(
  'an upgrade with %s leaves the programs running that need the schema, and names the command',
  (_, code, command) => {
    const { status, restarted, stderr } = upgrade(code)
    expect({ status, restarted }).toEqual({ status: 0, restarted: restarts('popup', 'sslwrap') })
    expect(stderr).toMatch(command)
    expect(stderr).toMatch(/ && systemctl try-restart auth-relay-authd.socket auth-relay-authd auth-relay-wrap /)
  },
)

test('purge removes the former settings that init kept', () => {
  const removed = `${path}/purged`
  mkdirSync(`${removed}/etc/auth-relay`, { recursive: true })
  for (const name of ['auth-relay.toml', 'auth-relay.toml.old', 'other']) writeFileSync(`${removed}/etc/${name}`, '')
  const text = readFileSync(new URL('../../../deploy/debian/postrm', import.meta.url), 'utf8').replaceAll(
    /(?<=[\s"])\/(etc|var|run)\//g,
    `${removed}/$1/`,
  )
  program('getent', 'exit 1')
  const env = { PATH: `${path}/bin:/usr/bin:/bin` }
  const { status } = spawnSync('sh', ['-c', text, 'postrm', 'purge'], { encoding: 'utf8', env })
  expect(status).toBe(0)
  expect(readdirSync(`${removed}/etc`)).toEqual(['other'])
})
