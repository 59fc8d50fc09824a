import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { debianSettings } from '../../../scripts/debian/settings-template.ts'
import { checkSettings } from '../../../src/auth-relay/check/check-settings.ts'
import { RECIPES } from '../../../src/auth-relay/text/settings-text.ts'
import { distributionServer } from '../../../src/database/server-program.ts'
import { parseSettings, SECTIONS } from '../../../src/settings/settings.ts'
import { TestNetwork } from '../../harness/hosts/network-namespace.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { describeWith, NETWORK_NAMESPACES } from '../../harness/runner/describe-with.ts'
import { commandOf, TEST_IDS } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)
chmodSync(path, 0o755)

type Ended = { readonly status: number | null | undefined; readonly lines: readonly string[] }

async function say(words: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const { ending, lines } = await run(commandOf('auth-relay', ...words), { env })
  return { status: ending?.code, lines }
}

describeWith([NETWORK_NAMESPACES], 'a file that init writes for a site', () => {
  let network: TestNetwork
  let database: TestDatabase
  beforeAll(async () => {
    network = new TestNetwork('192.0.2.1', '2001:db8::1')
    database = await createTestDatabase()
  })
  afterAll(async () => {
    await database.remove()
    network.remove()
  })

  test.each(Object.entries(RECIPES))(
    '%s: the file is short, its settings are safe, and the daemons start with it',
    async (site, recipe) => {
      const directory = `${path}/${site}`
      mkdirSync(directory)
      for (const name of ['run', 'state']) mkdirSync(`${directory}/${name}`)
      const config = `${directory}/auth-relay.toml`
      const { hosts, database: dbname } = database.connection()
      const dbhost = hosts.map(({ host }) => host).join(',')
      expect(await say(['init', '--for', site, '--dbhost', dbhost, '--config', config])).toMatchObject({ status: 0 })
      const text = readFileSync(config, 'utf8')
      expect(text.split('\n').length).toBeLessThan(80)
      expect(text).toMatch(/^#:schema \/\S+\/auth-relay\.schema\.json\n/)
      const configured = text.replace('configured = false', 'configured = true')
      expect(
        checkSettings(parseSettings(configured, config).settings).filter(each => each.verdict === 'unsafe'),
      ).toEqual([])
      writeFileSync(config, configured, { mode: 0o600 })
      // Parts of a host that the test machine lacks: accounts, the files of qmail, and the
      // passwords of the roles.
      writeFileSync(`${directory}/rules.cdb`, Buffer.alloc(2048))
      writeFileSync(`${directory}/passwd`, '', { mode: 0o600 })
      const env = {
        RUN_DIR: `${directory}/run`,
        STATE_DIR: `${directory}/state`,
        SYSLOG: '0',
        DBPORT: String(hosts[0]?.port ?? 5432),
        DBNAME: dbname,
        DBPASS: 'pop3authd',
        WRAP_DBPASS: 'authwrap',
        AUTHD_USER: String(TEST_IDS.authd),
        AUTHD_SOCKET: `${directory}/run/authd.sock`,
        AUTHD_USAGE_SOCKET: `${directory}/run/usage.sock`,
        POPUP_LOGIN_USER: String(TEST_IDS.login),
        SSLWRAP_USER: String(TEST_IDS.tls),
        SSLWRAP_CERT: `${directory}/tls.crt`,
        SSLWRAP_KEY: `${directory}/tls.key`,
        WRAP_USER: String(TEST_IDS.gate),
        WRAP_SMTPD_USER: String(TEST_IDS.smtpd),
        WRAP_SMTPD: '/bin/true',
        WRAP_RULES: `${directory}/rules.cdb`,
        POPUP_CHECKPASSWORD: '/bin/true',
        POPUP_PASSWD_FILE: `${directory}/passwd`,
        ...(site.startsWith('postfix') ? { WRAP_QUERY_LISTEN: `unix:${directory}/run/gate/query.sock` } : {}),
      }
      const programs: Program[] = []
      const units: readonly string[] = recipe.units
      try {
        for (const name of ['authd', 'popup', 'sslwrap', 'wrap'] as const) {
          if (!units.includes(name)) continue
          const program = new Program(name, commandOf(name, '--config', config), { env, prefix: network.server.prefix })
          programs.push(program)
          await program.waitForLine(new RegExp(`^${name} ready`), 90_000)
        }
        expect(programs.length).toBe(recipe.units.length)
      } finally {
        for (const program of programs.reverse()) await program.stop(30_000)
      }
    },
  )
})

describe('init beside a file that is not configured', () => {
  const config = `${path}/packaged.toml`
  const packaged = debianSettings()

  test('for a site with its server on another host: paths and secrets of the package stay, and the file has no password', async () => {
    writeFileSync(config, packaged)
    chmodSync(config, 0o644)
    const words = ['init', '--for', 'postfix', '--dbhost', 'db1.example.org,db2.example.org', '--config', config]
    const { status, lines } = await say(words)
    expect(status).toBe(0)
    expect(lines).toContain(`The former text is in ${config}.old; its settings stay.`)
    expect(readFileSync(`${config}.old`, 'utf8')).toBe(packaged)
    expect(statSync(config).mode & 0o777).toBe(0o644)
    const { settings, shown } = parseSettings(readFileSync(config, 'utf8'), config)
    expect(settings.database).toMatchObject({
      dbhost: 'db1.example.org,db2.example.org',
      dbpass: '',
      dbpass_file: '/etc/auth-relay/dbpass',
      wrap_dbpass_file: '/etc/auth-relay/wrap-dbpass',
    })
    expect(settings.popup.ssl_hack_pass).toBe('/etc/auth-relay/sslhack.pass')
    expect(settings.authd.usage_users).toEqual(['auth-relay-gate'])
    expect(settings.wrap.policy_listen).toHaveLength(1)
    expect(shown.filter(({ origin }) => origin.kind === 'file').length).toBeLessThan(20)
  })

  test('the embedded database in place of a server, and the reverse', async () => {
    const databaseOf = () => parseSettings(readFileSync(config, 'utf8'), config).settings.database
    expect((await say(['init', '--embedded', '--config', config])).status).toBe(0)
    expect(databaseOf().embedded).toBe(true)
    expect((await say(['init', '--dbhost', 'db3', '--config', config])).status).toBe(0)
    expect(databaseOf()).toMatchObject({ embedded: false, dbhost: 'db3' })
  })

  test('without a choice the PostgreSQL of the distribution is named, with the reason, if this host has one', async () => {
    const version = distributionServer()
    const file = `${path}/chosen.toml`
    const { status, lines } = await say(['init', '--config', file])
    expect(status).toBe(0)
    const { database } = parseSettings(readFileSync(file, 'utf8'), file).settings
    if (version === undefined) {
      expect(database.embedded).toBe(true)
    } else {
      expect(database).toMatchObject({ embedded: false, dbhost: 'localhost' })
      expect(lines.join('\n')).toContain(`PostgreSQL ${version} of this host, because the distribution updates it`)
    }
  })

  test('a configured file, a file with a fault, and an unknown site are refused', async () => {
    writeFileSync(config, 'configured = true\n')
    expect(await say(['init', '--for', 'exim', '--config', config])).toEqual({
      status: 100,
      lines: [expect.stringContaining(`${config} exists and is kept`)],
    })
    writeFileSync(config, 'configured = fals\n')
    expect(await say(['init', '--for', 'exim', '--config', config])).toMatchObject({ status: 100 })
    expect(readFileSync(config, 'utf8')).toBe('configured = fals\n')
    expect(await say(['init', '--for', 'postfx', '--config', config])).toEqual({
      status: 100,
      lines: [
        'auth-relay: there is no site postfx; did you mean postfix?: known are postfix, postfix-popup, exim, qmail, logs',
      ],
    })
  })
})

describe('auth-relay settings', () => {
  const config = `${path}/site.toml`
  const text =
    'configured = true\n[database]\ndbpass = "tXk7-secret"\n[grants]\nnever_nets = ["192.0.2.9"]\nexp_time = "1h"\n[popup]\ncompat = "qmail"\n'
  const REPORT = v.object({
    config: v.string(),
    settings: v.array(
      v.object({
        section: v.string(),
        name: v.string(),
        value: v.unknown(),
        default: v.unknown(),
        unit: v.nullable(v.string()),
        origin: v.looseObject({ type: v.string() }),
        environment: v.string(),
        formerNames: v.array(v.string()),
        doc: v.string(),
      }),
    ),
  })
  beforeAll(() => writeFileSync(config, text, { mode: 0o600 }))
  const printed = async (names: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> => {
    const { status, lines } = await say(['settings', ...names, '--config', config], env)
    expect(status).toBe(0)
    return lines.join('\n')
  }

  test('prints every setting, and no password', async () => {
    const { lines } = await say(['settings', '--json', '--config', config])
    const { settings } = v.parse(REPORT, JSON.parse(lines.join('\n')))
    const wanted = Object.values(SECTIONS).flatMap(({ name, rows }) => Object.keys(rows).map(row => `${name}.${row}`))
    expect(settings.map(({ section, name }) => `${section}.${name}`)).toEqual(wanted)
    const found = (name: string) => settings.find(each => `${each.section}.${each.name}` === name)
    expect(found('grants.exp_time')).toMatchObject({
      value: '1h',
      default: '30min',
      unit: 'seconds',
      origin: { type: 'file', line: 6 },
      environment: 'EXP_TIME',
    })
    expect(found('grants.never_grant')).toMatchObject({ value: ['192.0.2.9'], formerNames: ['never_nets'], unit: null })
    expect(found('pop3d.sizes')).toMatchObject({ value: 'file', default: 'file', origin: { type: 'default' } })
    expect(found('database.dbpass')).toMatchObject({ value: '[secret]', origin: { type: 'file' } })
    expect(lines.join('\n') + (await printed([]))).not.toContain('tXk7')
  })

  test('prints one setting by its name, its former name, or with its section; and a whole section', async () => {
    const exp = await printed(['exp_time'])
    expect(exp).toBe(`[grants]

  exp_time = "1h"  (line 6)
      Time that an address may relay after its last login. Below one minute is for tests only. A
      number without a unit counts seconds.
      default "30min", unit seconds, environment EXP_TIME`)
    expect(await printed(['exp_time'], { EXP_TIME: '90' })).toContain('exp_time = 90  (environment EXP_TIME)')
    expect(await printed(['never_nets'])).toMatch(/^ {2}never_grant = \["192\.0\.2\.9"\] {2}\(line 5\)$/m)
    expect((await printed(['wrap.listen'])).match(/^ {2}\w+ = /gm)).toEqual(['  listen = '])
    expect((await printed(['listen'])).match(/^\[.*\]$/gm)).toEqual(['[popup]', '[wrap]', '[status-page]'])
    expect((await printed(['grants'])).match(/^ {2}\w+ = /gm)).toHaveLength(Object.keys(SECTIONS.grants.rows).length)
  })

  test('an unknown name is answered with the nearest one', async () => {
    expect(await say(['settings', 'exp_tim', '--config', config])).toEqual({
      status: 100,
      lines: ['auth-relay: there is no setting exp_tim; did you mean exp_time?: auth-relay settings lists all'],
    })
    expect((await say(['settings', '--config', `${path}/none.toml`])).status).toBe(100)
  })
})
