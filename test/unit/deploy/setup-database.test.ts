import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const SCRIPT = new URL('../../../deploy/debian/auth-relay-setup-database', import.meta.url)
const SECRETS = ['dbpass', 'wrap-dbpass', 'status-dbpass'] as const

const { path, remove } = temporaryDirectory()
afterAll(remove)

/** Writes a program that the script calls. */
function program(name: string, text: string): void {
  writeFileSync(`${path}/bin/${name}`, `#!/bin/sh\n${text}\n`)
  chmodSync(`${path}/bin/${name}`, 0o755)
}

beforeAll(() => {
  mkdirSync(`${path}/bin`)
  program('id', 'echo 0')
  program('getent', 'exit 0')
  program('psql', 'exit 0') // prints no row, so the database does not exist
  program('createdb', 'echo "createdb $*"')
  program('runuser', 'shift 3; exec "$@"')
  program('auth-relay', 'echo "auth-relay $*: $DBPASS $WRAP_DBPASS $STATUS_DBPASS"')
})

/** Runs the script on a host that has these secrets in place of /etc/auth-relay. */
function setUp(secrets: readonly string[], host: string) {
  const directory = `${path}/${host}`
  mkdirSync(directory)
  for (const name of secrets) writeFileSync(`${directory}/${name}`, `value-of-${name}\n`)
  const text = readFileSync(SCRIPT, 'utf8').replaceAll('/etc/auth-relay/', `${directory}/`)
  const env = { PATH: `${path}/bin:/usr/bin:/bin` }
  return spawnSync('sh', ['-c', text], { encoding: 'utf8', env })
}

test('the command passes the three passwords to auth-relay migrate', () => {
  const { status, stdout } = setUp(SECRETS, 'complete')
  expect(stdout).toBe(
    'createdb pop3authd\n' +
      'auth-relay migrate --config /etc/auth-relay.toml --user postgres: ' +
      'value-of-dbpass value-of-wrap-dbpass value-of-status-dbpass\n',
  )
  expect(status).toBe(0)
})

test.each(SECRETS)('without the password in %s the command changes no database and names the remedy', missing => {
  const { status, stdout, stderr } = setUp(
    SECRETS.filter(name => name !== missing),
    `without-${missing}`,
  )
  expect(stdout).toBe('')
  expect(stderr).toMatch(
    new RegExp(`/${missing} has no password: remove it, then apt install --reinstall auth-relay\n$`),
  )
  expect(status).toBe(100)
})
