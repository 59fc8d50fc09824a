import { chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { describeWith } from '../harness/describe-with.ts'
import { eventually } from '../harness/eventually.ts'
import { GateDatabase } from '../harness/gate-database.ts'
import { Program } from '../harness/program.ts'
import { SmtpConversation } from '../harness/smtp-conversation.ts'
import { Stack, type TestSettings } from '../harness/stack.ts'
import { inPackage, PACKAGE_IDS, unpackedPackage } from '../harness/unpacked-package.ts'

const STRANGER = 'somebody@elsewhere.example'
const HOSTS = ['127.0.0.1', '::1'] as const

const freePort = (): Promise<number> =>
  new Promise(resolve => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(address !== null && typeof address === 'object' ? address.port : 0))
    })
  })

/** What the mail server says to a recipient, asked from a loopback address. */
async function recipient(host: string, port: number, to = STRANGER, from = 'ann@example.org'): Promise<number> {
  const conversation = SmtpConversation.over(connect(port, host))
  const { code } = await conversation.askFor(to, from)
  await conversation.quit()
  return code
}

/** The gate with a door, a mail server that asks there, and grants for both loopback addresses as they are wanted. */
class MailServerTest {
  readonly stack = new Stack()
  readonly grants: GateDatabase
  #server: Program | undefined

  private constructor(grants: GateDatabase) {
    this.grants = grants
  }

  static async create(): Promise<MailServerTest> {
    return new MailServerTest(await GateDatabase.create())
  }

  async gate(wrap: TestSettings[string]): Promise<void> {
    this.stack.configure({ ...this.grants.settings, wrap: { ...wrap } })
    await this.stack.start('wrap')
  }

  async serve(name: string, command: readonly string[], prefix: readonly string[], port: number): Promise<void> {
    const server = new Program(name, command, { prefix, cwd: this.stack.directory })
    this.#server = server
    const isOpen = (host: string) =>
      new Promise<boolean>(resolve => {
        const probe = connect(port, host, () => resolve(true)).once('error', () => resolve(false))
        probe.once('connect', () => probe.destroy())
      })
    for (const host of HOSTS)
      await eventually(`${name} on ${host}`, async () => {
        if (server.ending !== undefined) throw new Error(server.transcript())
        return isOpen(host)
      })
  }

  /** Refused before the login, accepted after it, refused when it has ended; local mail always. */
  async expectRelayFollowsGrants(port: number): Promise<void> {
    for (const host of HOSTS) {
      expect(await recipient(host, port, 'bob@example.org')).toBe(250)
      expect(await recipient(host, port)).toBeGreaterThanOrEqual(550)
      await this.grants.grant(host, 'ann@example.org')
      expect(await recipient(host, port)).toBe(250)
      await this.grants.grant(host, 'ann@example.org', -1)
      expect(await recipient(host, port)).toBeGreaterThanOrEqual(550)
    }
  }

  /** The gate is gone, or cannot ask: strangers are refused for good, nobody is put off, local mail flows. */
  async expectClosedWithoutDatabase(port: number): Promise<void> {
    await this.grants.grant('127.0.0.1', 'ann@example.org')
    expect(await recipient('127.0.0.1', port)).toBe(250)
    await this.grants.database.owner.script('ALTER VIEW relay_gate RENAME TO relay_gate_away')
    try {
      expect(await recipient('127.0.0.1', port)).toBeGreaterThanOrEqual(550)
      expect(await recipient('127.0.0.1', port, 'bob@example.org')).toBe(250)
    } finally {
      await this.grants.database.owner.script('ALTER VIEW relay_gate_away RENAME TO relay_gate')
    }
  }

  async reset(): Promise<void> {
    await this.#server?.stop()
    this.#server = undefined
    await this.stack.stopPrograms()
    await this.grants.database.owner.script('DELETE FROM grants')
  }

  async end(): Promise<void> {
    await this.reset()
    await this.stack.stop()
    await this.grants.remove()
  }
}

describeWith([unpackedPackage('postfix')], 'Postfix', () => {
  let mail: MailServerTest
  let runs = 0
  beforeAll(async () => {
    mail = await MailServerTest.create()
  })
  afterEach(() => mail.reset())
  afterAll(() => mail.end())

  const postfix = async (restriction: string): Promise<number> => {
    const port = await freePort()
    const home = `${mail.stack.directory}/postfix${runs++}`
    const { postfix: uid, postdrop } = PACKAGE_IDS
    for (const path of [home, `${home}/data`, `${home}/queue`, `${home}/queue/pid`]) mkdirSync(path)
    for (const name of [
      'active',
      'bounce',
      'corrupt',
      'defer',
      'deferred',
      'flush',
      'hold',
      'incoming',
      'private',
      'saved',
      'trace',
      'maildrop',
      'public',
    ]) {
      mkdirSync(`${home}/queue/${name}`)
      chownSync(`${home}/queue/${name}`, uid, name === 'public' || name === 'maildrop' ? postdrop : uid)
    }
    chownSync(`${home}/data`, uid, uid)
    writeFileSync(
      `${home}/main.cf`,
      `compatibility_level = 3.6
queue_directory = ${home}/queue
data_directory = ${home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = ${home}/mail.log
maillog_file_prefixes = ${home}
myhostname = mx.example.org
mydestination = example.org
mynetworks = 203.0.113.0/24
inet_protocols = all
local_recipient_maps =
alias_maps =
smtpd_relay_restrictions = ${restriction}, reject_unauth_destination
smtpd_client_restrictions =
smtpd_peername_lookup = no
`,
    )
    writeFileSync(
      `${home}/master.cf`,
      `127.0.0.1:${port} inet n - n - - smtpd
[::1]:${port} inet n - n - - smtpd
rewrite unix - - n - - trivial-rewrite
cleanup unix n - n - 0 cleanup
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
`,
    )
    await mail.serve('postfix', ['/usr/lib/postfix/sbin/master', '-c', home, '-d'], inPackage('postfix'), port)
    return port
  }

  test('asks the policy service', async () => {
    const socket = `${mail.stack.directory}/run/policy.sock`
    await mail.gate({ policy_listen: [`unix:${socket}`], sender_binding: 'refuse' })
    const port = await postfix(`check_policy_service unix:${socket}`)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectClosedWithoutDatabase(port)
    await mail.grants.grant('127.0.0.1', 'ann@example.org')
    expect(await recipient('127.0.0.1', port, STRANGER, 'boss@example.org')).toBe(550)
  })

  test('asks the socketmap', async () => {
    const socket = `${mail.stack.directory}/run/socketmap.sock`
    await mail.gate({ socketmap_listen: [`unix:${socket}`] })
    const port = await postfix(`check_client_access socketmap:unix:${socket}:relay`)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectClosedWithoutDatabase(port)
  })
})

describeWith([unpackedPackage('exim4-daemon-light')], 'Exim', () => {
  let mail: MailServerTest
  beforeAll(async () => {
    mail = await MailServerTest.create()
  })
  afterEach(() => mail.reset())
  afterAll(() => mail.end())

  test('asks by readsocket', async () => {
    const port = await freePort()
    const home = `${mail.stack.directory}/exim`
    for (const path of [home, `${home}/spool`, `${home}/log`]) {
      mkdirSync(path)
      chownSync(path, PACKAGE_IDS.exim, PACKAGE_IDS.exim)
    }
    const socket = `${mail.stack.directory}/run/question.sock`
    await mail.gate({ question_listen: [`unix:${socket}`] })
    const config = `${mail.stack.directory}/exim.conf`
    writeFileSync(
      config,
      `primary_hostname = mx.example.org
spool_directory = ${home}/spool
log_file_path = ${home}/log/%slog
local_interfaces = <; 127.0.0.1 ; ::1
daemon_smtp_ports = ${port}
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = recipient
begin acl
recipient:
  accept domains = example.org
  accept condition = \${if match{\${readsocket{${socket}}{relay v=1 ip=$sender_host_address\\n}{3s}{}{unknown}}}{^yes }}
  deny message = relay not permitted
`,
      { mode: 0o644 },
    )
    await mail.serve('exim', ['/usr/sbin/exim4', '-C', config, '-bdf'], inPackage('exim4-daemon-light'), port)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectClosedWithoutDatabase(port)
  })
})
