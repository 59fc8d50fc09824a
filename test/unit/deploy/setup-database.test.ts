import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { chooseSettings, describeSettings } from '../../../src/auth-relay/verbs/settings.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
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

const ADDRESS = ['database.dbhost', 'database.dbport', 'database.dbname']

/** The output of `auth-relay settings --json` for these settings. */
const describedAddress = (toml: string): string =>
  JSON.stringify({ config: '/x', settings: chooseSettings(describeSettings(parseSettings(toml, '/x', {})), ADDRESS) })

beforeAll(() => {
  mkdirSync(`${path}/bin`)
  program('id', 'echo 0')
  program('getent', 'exit 0')
  program('psql', `echo "$PGHOST $PGPORT $*" >>"$CALLS"; [ -z "$EXISTS" ] || echo 1`)
  program('createdb', 'echo "createdb $*"')
  program('runuser', 'shift 3; exec "$@"')
  program(
    'auth-relay',
    `case "$*" in
"settings --config "*" --json ${ADDRESS.join(' ')}") cat "$DESCRIBED" ;;
*--check) echo "compared"; exit "$OLDER" ;;
*) echo "auth-relay $*: $DBHOST $DBPASS $WRAP_DBPASS $STATUS_DBPASS" ;;
esac`,
  )
})

type Host = {
  readonly secrets?: readonly string[]
  /** Undefined: they are invalid. */
  readonly settings?: string | undefined
  readonly words?: readonly string[]
  /** The host has a cluster of Debian. */
  readonly cluster?: boolean
  /** The server has the database. */
  readonly exists?: boolean
  /** The schema of a database elsewhere is older than the programs. */
  readonly older?: boolean
}

/** Runs the script on a host that has these files in place of those below /etc. */
function setUp(host: string, { secrets = SECRETS, words = [], ...facts }: Host = {}) {
  const directory = `${path}/${host}`
  const settings = 'settings' in facts ? facts.settings : ''
  mkdirSync(directory)
  for (const name of secrets) writeFileSync(`${directory}/${name}`, `value-of-${name}\n`)
  if (settings !== undefined) writeFileSync(`${directory}/described`, describedAddress(settings))
  if (facts.cluster !== false) mkdirSync(`${directory}/postgresql/15/main`, { recursive: true })
  const text = readFileSync(SCRIPT, 'utf8')
    .replaceAll('/etc/auth-relay/', `${directory}/`)
    .replaceAll('config=/etc/auth-relay.toml', `config=${directory}/auth-relay.toml`)
    .replaceAll('/etc/postgresql', `${directory}/postgresql`)
  const env = {
    PATH: `${path}/bin:/usr/bin:/bin`,
    CALLS: `${directory}/calls`,
    DESCRIBED: `${directory}/described`,
    EXISTS: facts.exists === true ? '1' : '',
    OLDER: facts.older === true ? '1' : '0',
  }
  const ended = spawnSync('sh', ['-c', text, 'setup', ...words], { encoding: 'utf8', env })
  const calls = readFileSync(`${directory}/calls`, { encoding: 'utf8', flag: 'a+' })
  return { ...ended, calls, config: `${directory}/auth-relay.toml` }
}

const VALUES = 'value-of-dbpass value-of-wrap-dbpass value-of-status-dbpass'

test('the command passes the three passwords to auth-relay migrate', () => {
  const { status, stdout, stderr, config } = setUp('complete')
  expect(stderr).toBe('')
  expect(stdout).toBe(
    'createdb -- pop3authd\n' +
      `auth-relay migrate --config ${config} --user postgres: /var/run/postgresql ${VALUES}\n`,
  )
  expect(status).toBe(0)
})

test('the command makes the database of the settings, with their port and socket directory', () => {
  const settings = '[database]\ndbhost = "/run/other"\ndbport = 5433\ndbname = "mail"\n'
  const { stdout, calls, config } = setUp('other-name', { settings })
  expect(calls).toBe('/run/other 5433 -XAt -v name=mail postgres\n')
  expect(stdout).toBe(`createdb -- mail\nauth-relay migrate --config ${config} --user postgres: /run/other ${VALUES}\n`)
})

describe('an upgrade', () => {
  const words = ['--upgrade']

  test('migrates the database of this host that the settings name', () => {
    const settings = '[database]\ndbname = "mail"\n'
    const { status, stdout, calls } = setUp('upgrade', { words, settings, exists: true })
    expect(calls).toContain('name=mail')
    expect(stdout).toContain('auth-relay migrate ')
    expect(status).toBe(0)
  })

  test('does nothing if the server of this host has no such database', () => {
    expect(setUp('without-database', { words })).toMatchObject({ status: 0, stdout: '', stderr: '' })
  })

  test.each([
    ['the settings name another host', { settings: '[database]\ndbhost = "db1.example.org"\n' }],
    ['the settings name several hosts', { settings: '[database]\ndbhost = "localhost,db2.example.org"\n' }],
    ['the server of this host is no cluster of Debian', { cluster: false }],
  ] as const)('only compares the schema if %s', (_, host) => {
    const name = JSON.stringify(host).replace(/\W/g, '')
    const same = setUp(`same-${name}`, { words, ...host })
    expect(same).toMatchObject({ status: 0, stdout: '', stderr: 'compared\n', calls: '' })
    const older = setUp(`older-${name}`, { words, ...host, older: true })
    expect(older).toMatchObject({ status: 1, stdout: '', stderr: 'compared\n', calls: '' })
  })

  test('with settings that are invalid fails, and changes no database', () => {
    const { status, stdout, calls } = setUp('invalid', { words, settings: undefined, exists: true })
    expect({ status, stdout, calls }).toEqual({ status: 1, stdout: '', calls: '' })
  })
})

test.each(SECRETS)('without the password in %s the command changes no database and names the remedy', missing => {
  const { status, stdout, stderr } = setUp(`without-${missing}`, {
    secrets: SECRETS.filter(name => name !== missing),
  })
  expect(stdout).toBe('')
  expect(stderr).toMatch(
    new RegExp(`/${missing} has no password: remove it, then apt install --reinstall auth-relay\n$`),
  )
  expect(status).toBe(100)
})
