import { readFileSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../../src/database/database.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { AuthdClient, loginFrom } from '../../harness/authd/authd-client.ts'
import { eventually } from '../../harness/eventually.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../../harness/postgres/postgres-cluster.ts'
import { describeWith } from '../../harness/runner/describe-with.ts'
import { Stack, type TestSettings } from '../../harness/stack.ts'

const OPERATING = readFileSync(new URL('../../../docs/OPERATING.md', import.meta.url), 'utf8')
const CHECKED = v.object({
  findings: v.array(v.object({ verdict: v.string(), about: v.string(), text: v.string() })),
})
const REPORT = v.array(v.object({ login: v.string(), relays: v.number(), hints: v.array(v.string()) }))
const CLIENT = '203.0.113.5'

describeWith([DEBIAN_POSTGRES], 'several hosts with one database, with the lines of OPERATING for pg_hba.conf', () => {
  let cluster: PostgresCluster
  let pop3: Stack
  let smtp: Stack
  let authority: string
  const { cert, key } = makeSelfSigned({ names: ['127.0.0.1'], now: Date.now() })

  /** The documented lines of these roles; every host is this machine. */
  const hbaFor = (roles: readonly string[]): string => {
    const [, block = ''] = /^```pg_hba\n([\s\S]*?)^```/m.exec(OPERATING) ?? []
    const lines = block.split('\n').filter(line => line.startsWith('hostssl '))
    expect(lines).toHaveLength(3)
    const chosen = lines.filter(line => roles.some(role => line.split(/\s+/)[2]?.split(',').includes(role)))
    expect(chosen).toHaveLength(roles.length)
    return `${chosen.map(line => line.replace(/192\.0\.2\.\d+/, '127.0.0.1')).join('\n')}\n`
  }
  const settings = (host: Stack, own: TestSettings): TestSettings => ({
    ...own,
    database: {
      dbhost: '127.0.0.1',
      dbport: cluster.port,
      dbtls: 'verify',
      dbtls_ca: authority,
      ...own['database'],
    },
    popup: { listen: [] },
    authd: { socket: `${host.directory}/run/authd.sock`, ...own['authd'] },
  })
  /** check's findings about the database and the reports of the gate. */
  const findingsOf = async (host: Stack): Promise<readonly string[]> => {
    const { lines } = await host.run('auth-relay', ['check', '--json', '--config', host.config])
    const { findings } = v.parse(CHECKED, JSON.parse(lines.join('\n')))
    return findings
      .filter(({ about }) => /^database\.(\w*dbuser)$|^authd\.usage_socket$/.test(about))
      .map(({ verdict, about, text }) => `${verdict} ${about}: ${text}`)
  }

  beforeAll(async () => {
    cluster = await PostgresCluster.start({ tls: { certificate: cert, key } })
    const server = openDatabase({
      hosts: [{ host: '127.0.0.1', port: cluster.port }],
      database: 'postgres',
      user: 'postgres',
      password: { reveal: () => PostgresCluster.password },
      applicationName: 'tests',
      max: 1,
    })
    await server.script('CREATE DATABASE pop3authd')
    await server.close()
    cluster.useHba(hbaFor(['pop3authd', 'authwrap', 'postgres']))
    pop3 = new Stack()
    smtp = new Stack()
    authority = `${pop3.directory}/ca.pem`
    writeFileSync(authority, cert, { mode: 0o644 })
  })
  afterAll(async () => {
    await smtp?.stop()
    await pop3?.stop()
    await cluster?.remove()
  })

  test('migrate on one host makes the roles; each host then needs only the password of its role', async () => {
    const [writer, reader] = [pop3.secret('dbpass', 'w'.repeat(24)), pop3.secret('wrap-dbpass', 'r'.repeat(24))]
    const owner = pop3.secret('postgres.pass', PostgresCluster.password)
    pop3.configure(settings(pop3, { database: { dbpass_file: writer, wrap_dbpass_file: reader } }))
    const words = ['migrate', '--user', 'postgres', '--password-file', owner, '--config', pop3.config]
    const migrated = await pop3.run('auth-relay', words)
    expect(migrated.lines).toEqual([expect.stringMatching(/^Migrated from schema 0 to \d+\.$/)])
    // The host that made the roles keeps only the writer's password.
    pop3.configure(settings(pop3, { database: { dbpass_file: writer }, authd: { syslog_listen: ['127.0.0.1:0'] } }))
    expect(await findingsOf(pop3)).toEqual([
      expect.stringMatching(/^fine database\.dbuser: pop3authd reaches the database/),
    ])
    smtp.configure(
      settings(smtp, {
        database: { wrap_dbpass_file: smtp.secret('wrap-dbpass', 'r'.repeat(24)) },
        wrap: { policy_listen: ['127.0.0.1:0'] },
      }),
    )
    expect(await findingsOf(smtp)).toEqual([
      expect.stringMatching(/^fine database\.wrap_dbuser: authwrap reaches the database/),
      expect.stringMatching(/^advice authd\.usage_socket: no authd of this host reads the reports of the gate/),
    ])
  })

  test('a login at the POP3 host opens the relay at the SMTP host', async () => {
    await pop3.start('authd')
    smtp.configure(
      settings(smtp, {
        database: {
          dbpass_file: smtp.secret('dbpass', 'w'.repeat(24)),
          wrap_dbpass_file: smtp.secret('wrap-dbpass', 'r'.repeat(24)),
        },
        authd: { socket: '' },
        wrap: { policy_listen: ['127.0.0.1:0'] },
      }),
    )
    await smtp.start('authd')
    await smtp.start('wrap')
    expect((await findingsOf(smtp)).filter(text => !text.startsWith('fine '))).toEqual([])
    const client = await AuthdClient.connect(`${pop3.directory}/run/authd.sock`)
    expect(await client.announce(loginFrom('1.1', CLIENT))).toMatchObject({ verdict: 'committed' })
    client.close()
    const answer = await ask(smtp.port('wrap', 0, 'policy'), CLIENT)
    expect(answer).toContain('action=OK')
  })

  test('report on either host counts the mail that the SMTP host relayed', async () => {
    for (const host of [pop3, smtp]) {
      // The query came in the second of the login, and the report must not miss it.
      const rows = await eventually('the usage event is stored', async () => {
        const { lines } = await host.run('auth-relay', ['report', '--json', '--config', host.config])
        const found = v.parse(REPORT, JSON.parse(lines.join('\n')))
        return found.some(({ relays }) => relays > 0) && found
      })
      expect(rows).toEqual([{ login: 'ann', relays: 1, hints: expect.not.arrayContaining(['never-relays']) }])
    }
  })

  test("on a host with only the gate's password a command names the host on which to run it", async () => {
    const other = new Stack()
    onTestFinished(() => other.stop())
    const missing = `${other.directory}/dbpass`
    const reader = other.secret('wrap-dbpass', 'r'.repeat(24))
    other.configure(settings(other, { database: { dbpass_file: missing, wrap_dbpass_file: reader } }))
    for (const words of [['show'], ['explain', CLIENT], ['report'], ['watch'], ['block', CLIENT]]) {
      const { lines, ending } = await other.run('auth-relay', [...words, '--config', other.config])
      expect(lines).toEqual([
        `auth-relay: this host has the password of authwrap alone, and commands need that of pop3authd: run the command on a host where authd runs, or write ${missing}`,
      ])
      expect(ending?.code).toBe(100)
    }
  })

  test('for a host that pg_hba.conf does not admit the error names the missing line', async () => {
    cluster.useHba(hbaFor(['pop3authd']))
    await smtp.program('wrap').stop()
    const refused = await eventually('the reader is refused', async () => {
      const findings = await findingsOf(smtp)
      return findings.some(text => text.startsWith('unsafe database.wrap_dbuser')) && findings
    })
    expect(refused.join('\n')).toMatch(/no pg_hba\.conf entry/)
    expect(refused).toContainEqual(expect.stringMatching(/^fine database\.dbuser: /))
  })
})

/** The policy service's answer for a client that sends to a foreign domain. */
function ask(port: number, address: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host: '127.0.0.1', port })
    let text = ''
    socket.setEncoding('utf8')
    socket.on('error', reject)
    socket.on('data', (chunk: string) => {
      text += chunk
      if (!text.includes('\n\n')) return
      socket.destroy()
      resolve(text)
    })
    socket.write(
      `request=smtpd_access_policy\nclient_address=${address}\nsender=ann@example.org\nrecipient=x@example.net\n\n`,
    )
  })
}
