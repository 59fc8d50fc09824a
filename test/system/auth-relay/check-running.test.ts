import { mkdirSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { TestNetwork } from '../../harness/hosts/network-namespace.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { describeWith, NETWORK_NAMESPACES } from '../../harness/runner/describe-with.ts'
import { commandOf, Stack, TEST_IDS, type TestSettings } from '../../harness/stack.ts'

const REPORT = v.object({
  safe: v.boolean(),
  findings: v.array(
    v.object({ verdict: v.string(), about: v.string(), text: v.string(), remedy: v.optional(v.string()) }),
  ),
})

const SCHEMA = { row: v.object({ v: v.number() }), text: 'SELECT max(v) AS v FROM schema_version' }

const STATUS = v.object({
  problems: v.array(v.string()),
  programs: v.array(v.object({ name: v.string(), pid: v.number(), since: v.string(), startedBy: v.string() })),
})

describeWith([NETWORK_NAMESPACES], 'check while programs run', () => {
  let network: TestNetwork
  let database: TestDatabase
  let stack: Stack

  const settings = (more: TestSettings = {}): TestSettings => {
    const { hosts, database: dbname } = database.connection('pop3authd')
    return {
      ...more,
      database: {
        dbhost: hosts.map(({ host }) => host).join(','),
        dbport: hosts[0]?.port ?? 5432,
        dbname,
        dbpass_file: stack.secret('dbpass', 'pop3authd'),
        wrap_dbpass_file: stack.secret('wrap-dbpass', 'authwrap'),
        status_dbpass_file: stack.secret('status-dbpass', 'authstatus'),
        ...more['database'],
      },
      popup: { listen: ['*:110'], ...more['popup'] },
      authd: {
        user: `${TEST_IDS.authd}`,
        metrics_listen: '127.0.0.1:9633',
        syslog_listen: ['127.0.0.1:6514'],
        check_daemon_dovecot: true,
        ...more['authd'],
      },
      wrap: {
        policy_listen: ['127.0.0.1:10040', `unix:${stack.directory}/run/gate/policy.sock`],
        ...more['wrap'],
      },
    }
  }
  const inside = (): { prefix: readonly string[] } => ({ prefix: network.server.prefix })
  const check = async () => {
    const words = ['check', '--config', stack.config, '--json']
    const { lines, ending } = await stack.run('auth-relay', words, inside())
    return { status: ending?.code, ...v.parse(REPORT, JSON.parse(lines.join('\n'))) }
  }
  const statusJson = () => stack.run('auth-relay', ['status', '--json', '--config', stack.config], inside())
  const findingsAbout = async (about: string): Promise<readonly string[]> =>
    (await check()).findings.flatMap(finding =>
      finding.about === about ? [`${finding.verdict}: ${finding.text}`] : [],
    )

  beforeAll(async () => {
    network = new TestNetwork('192.0.2.1', '2001:db8::1')
    database = await createTestDatabase()
    stack = new Stack()
    stack.account('ann')
    stack.configure(settings())
  })
  afterAll(async () => {
    await stack.stop()
    await database.remove()
    network.remove()
  })

  test('a directory that is closed to the account is a finding, with the remedy to check as root', async () => {
    const closed = `${stack.directory}/closed`
    mkdirSync(closed, { mode: 0o700 })
    const file = `${stack.directory}/readable.toml`
    const passwords = `[popup]\nlisten = ["127.0.0.1:0"]\npasswd_file = "${closed}/passwd"\n`
    writeFileSync(file, `configured = true\nrun_dir = "${closed}/run"\n${passwords}`)
    const asNobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
    const { lines, ending } = await stack.run('auth-relay', ['check', '--config', file, '--json'], { prefix: asNobody })
    expect(ending?.code, lines.join('\n')).toBe(1)
    expect(v.parse(REPORT, JSON.parse(lines.join('\n'))).findings).toContainEqual({
      verdict: 'unsafe',
      about: 'auth-relay check',
      text: expect.stringMatching(/^not checked in full: EACCES: permission denied, .*\/closed\//),
      remedy: 'run auth-relay check as root',
    })
  })

  test('before the start every port is free, and nothing is unsafe', async () => {
    const { status, findings } = await check()
    expect(findings.filter(({ verdict }) => verdict === 'unsafe')).toEqual([])
    expect(findings).toContainEqual({ verdict: 'fine', about: 'listeners', text: 'every port is free' })
    expect(status).toBe(0)
  })

  test('while every program runs, check names the program of each listener and exits with 0', async () => {
    for (const name of ['authd', 'popup', 'sslwrap', 'wrap'] as const) await stack.start(name, inside())
    const { status, safe, findings } = await check()
    expect(findings.filter(({ verdict }) => verdict === 'unsafe')).toEqual([])
    expect({ status, safe }).toEqual({ status: 0, safe: true })
    const texts = findings.map(({ about, text }) => `${about}: ${text.replace(stack.directory, '')}`)
    expect(texts).toEqual(
      expect.arrayContaining([
        'popup.listen: popup listens on [::]:110',
        'sslwrap.listener: sslwrap listens on [::]:995',
        'authd.metrics_listen: authd listens on 127.0.0.1:9633',
        'authd.syslog_listen: authd listens on 127.0.0.1:6514',
        'authd.socket: authd listens on unix:/run/authd.sock',
        'authd.usage_socket: authd listens on unix:/run/usage.sock',
        'wrap.policy_listen: wrap listens on 127.0.0.1:10040',
        'wrap.policy_listen: wrap listens on unix:/run/gate/policy.sock',
      ]),
    )
    const { lines } = await stack.run('auth-relay', ['check', '--quiet', '--config', stack.config], inside())
    expect(lines.at(-1)).toBe('Safe.')
  })

  test('status shows programs, database, log sources and certificates on one screen, and exits with 0', async () => {
    const { lines, ending } = await stack.run('auth-relay', ['status', '--config', stack.config], inside())
    const screen = lines.join('\n')
    for (const name of ['authd', 'popup', 'sslwrap', 'wrap'] as const) {
      expect(screen).toMatch(new RegExp(`^  ${name} +since [\\d-]+ [\\d:]+, pid \\d+, by hand$`, 'm'))
      expect(lines.filter(line => line.startsWith(`  ${name} `))).toHaveLength(1)
    }
    expect(screen).toMatch(/^ {2}server +\S+, role authstatus, schema \d+$/m)
    expect(screen).toMatch(/^ {2}logins, last hour +0 granted, 0 refused$/m)
    expect(screen).toMatch(/^ {2}syslog to 127\.0\.0\.1:6514 +no line yet$/m)
    expect(screen).toMatch(/^ {2}\[::\]:995 +mx\.example\.org, until \d{4}-/m)
    expect(lines.at(-1)).toBe('Nothing is wrong.')
    expect(ending?.code).toBe(0)
  })

  test('status names a program that does not run: 1; an unavailable database: 111', async () => {
    const status = async (env: Readonly<Record<string, string>> = {}) => {
      const words = ['status', '--json', '--config', stack.config]
      const { lines, ending } = await stack.run('auth-relay', words, { ...inside(), env })
      const { problems, programs } = v.parse(STATUS, JSON.parse(lines.join('\n')))
      return { code: ending?.code, problems, names: programs.map(({ name }) => name).sort() }
    }
    expect(await status()).toEqual({ code: 0, problems: [], names: ['authd', 'popup', 'sslwrap', 'wrap'] })
    await stack.program('wrap').stop()
    expect(await status()).toEqual({
      code: 1,
      problems: ['wrap does not run'],
      names: ['authd', 'popup', 'sslwrap'],
    })
    await stack.start('wrap', inside())
    const unavailable = await status({ DBHOST: '/nonexistent' })
    expect(unavailable.code).toBe(111)
    expect(unavailable.problems).toEqual([expect.stringMatching(/^database: no database: /)])
  })

  test('an older and a newer schema of the database are unsafe for check, and a fault for status', async () => {
    const [latest] = (await database.owner.query(SCHEMA)).rows.map(({ v: version }) => version)
    if (latest === undefined) throw new Error('no schema')
    const stand = async (): Promise<readonly string[]> => [
      ...(await check()).findings.flatMap(({ verdict, about, text, remedy }) =>
        about === 'database' ? [`${verdict}: ${text}: ${remedy}`] : [],
      ),
      ...v
        .parse(STATUS, JSON.parse((await statusJson()).lines.join('\n')))
        .problems.filter(problem => problem.startsWith('database: schema')),
    ]
    try {
      await database.owner.script(`DELETE FROM schema_version WHERE v = ${latest}`)
      const older = `has schema ${latest - 1}, this program knows ${latest}`
      const found = await stand()
      expect(new Set(found)).toEqual(
        new Set([
          `unsafe: ${older}: auth-relay migrate`,
          `database: schema ${older.slice(11)}: run auth-relay migrate`,
        ]),
      )
      await database.owner.script(`INSERT INTO schema_version (v) VALUES (${latest}), (${latest + 1})`)
      expect(new Set(await stand())).toEqual(
        new Set([
          `unsafe: has schema ${latest + 1}, this program knows ${latest}: install a newer auth-relay`,
          `database: schema ${latest + 1}, this program knows ${latest}: install a newer auth-relay`,
        ]),
      )
    } finally {
      await database.owner.script(
        `DELETE FROM schema_version WHERE v > ${latest}; INSERT INTO schema_version (v) VALUES (${latest}) ON CONFLICT DO NOTHING`,
      )
    }
    expect(await stand()).toEqual([])
  })

  test('a wrong password, a missing role and a role with wrong rights: the remedy is migrate, not a start of PostgreSQL', async () => {
    const remedies = async (changed: TestSettings['database']): Promise<readonly string[]> => {
      stack.configure(settings({ database: changed }))
      return (await check()).findings.flatMap(({ verdict, about, text, remedy }) =>
        verdict === 'unsafe' ? [`${about}: ${text} | ${remedy}`] : [],
      )
    }
    const guessed = stack.secret('guessed', 'guessed')
    const migrate = 'with auth-relay migrate --user postgres, or correct the password in the settings$'
    expect(await remedies({ dbpass_file: guessed })).toEqual([
      expect.stringMatching(
        new RegExp(`^database\\.dbuser: .*password authentication failed .* make the role \\w+ .*${migrate}`),
      ),
    ])
    expect(await remedies({ wrap_dbuser: 'nosuchrole', wrap_dbpass_file: guessed })).toEqual([
      expect.stringMatching(new RegExp(`^database\\.wrap_dbuser: .* make the role nosuchrole .*${migrate}`)),
    ])
    // The gate with the role of the writer, and authd with the role of the reader.
    const { dbpass_file, wrap_dbpass_file } = { dbpass_file: '', wrap_dbpass_file: '', ...settings()['database'] }
    expect(await remedies({ wrap_dbuser: 'pop3authd', wrap_dbpass_file: dbpass_file })).toEqual([
      'database.wrap_dbuser: pop3authd may write grants: it must only read | auth-relay migrate --user postgres, then leave wrap_dbuser at its default',
    ])
    expect(await remedies({ dbuser: 'authwrap', dbpass_file: wrap_dbpass_file })).toEqual([
      'database.dbuser: authwrap may not write grants | auth-relay migrate --user postgres',
    ])
    stack.configure(settings())
  })

  test('a listener that a program of another kind has is unsafe, with its name and pid', async () => {
    for (const [name, address, text] of [
      ['sslwrap', "{ host: '::', port: 995 }", '[::]:995'],
      ['wrap', "{ host: '127.0.0.1', port: 10040 }", '127.0.0.1:10040'],
    ] as const) {
      await stack.program(name).stop()
      const script = `require('net').createServer().listen(${address}, () => console.log('listens'))`
      const other = new Program('other', [process.execPath, '-e', script], inside())
      await other.waitForLine(/listens/)
      const { status, findings } = await check()
      const held = findings.filter(finding => finding.text.startsWith(`${text} is held by `))
      expect(held).toEqual([
        expect.objectContaining({
          verdict: 'unsafe',
          text: expect.stringMatching(/is held by \S+ \(pid \d+, account root\)$/),
          remedy: expect.stringContaining('stop that program'),
        }),
      ])
      expect(status).toBe(1)
      await other.stop()
      await stack.start(name, inside())
    }
  })

  test('an auth-relay program on the port of another auth-relay program is reported', async () => {
    stack.configure(settings({ authd: { syslog_listen: ['127.0.0.1:110'] } }))
    expect(await findingsAbout('authd.syslog_listen')).toContainEqual(
      expect.stringMatching(/^unsafe: 127\.0\.0\.1:110 is held by popup \(pid \d+, account root\)$/),
    )
    stack.configure(settings())
  })

  test('a host that only reads a log needs no passwords of popup and no port of sslwrap', async () => {
    const files = { passwd_file: '/nonexistent/passwd', ssl_hack_pass: '/nonexistent/sslhack.pass' }
    stack.configure(settings({ popup: { listen: [], ...files } }))
    const { status, findings } = await check()
    expect(findings.filter(({ about }) => /^(popup|sslwrap)\./.test(about))).toEqual([])
    expect(status).toBe(0)
    stack.configure(settings({ popup: files }))
    expect((await check()).findings.filter(({ verdict }) => verdict === 'unsafe').map(({ about }) => about)).toEqual([
      'popup.ssl_hack_pass',
      'popup.passwd_file',
    ])
    stack.configure(settings())
  })

  test('an SMTP host needs only the password of the reader, a POP3 host only that of the writer', async () => {
    const noLogs = { syslog_listen: [], check_daemon_dovecot: false }
    stack.configure(
      settings({ database: { dbpass_file: '/nonexistent/dbpass' }, popup: { listen: [] }, authd: noLogs }),
    )
    expect(await check()).toMatchObject({ status: 0, safe: true })
    expect(await findingsAbout('database.dbuser')).toEqual([])
    expect(await findingsAbout('database.wrap_dbuser')).toEqual([expect.stringMatching(/^fine: authwrap reaches/)])
    stack.configure(
      settings({ database: { wrap_dbpass_file: '/nonexistent/wrap-dbpass' }, wrap: { policy_listen: [] } }),
    )
    expect(await check()).toMatchObject({ status: 0, safe: true })
    expect(await findingsAbout('database.wrap_dbuser')).toEqual([])
    expect(await findingsAbout('database.dbuser')).toEqual([expect.stringMatching(/^fine: pop3authd reaches/)])
    stack.configure(settings())
  })
})

test.each(['--version', '-V', 'version'])('auth-relay %s prints the version', async word => {
  const { lines, ending } = await run(commandOf('auth-relay', word))
  expect(lines).toEqual([expect.stringMatching(/^auth-relay \d+\.\d+\.\d+/)])
  expect(ending?.code).toBe(0)
})
