import { once } from 'node:events'
import { chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { parse } from 'smol-toml'
import * as v from 'valibot'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { installBlock, installRecipe, installText } from '../../harness/hosts/install-recipe.ts'
import { TestNetwork } from '../../harness/hosts/network-namespace.ts'
import { inPackage, PACKAGE_IDS, unpackedPackage } from '../../harness/hosts/unpacked-package.ts'
import { GateDatabase } from '../../harness/postgres/gate-database.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { command, describeWith, NETWORK_NAMESPACES } from '../../harness/runner/describe-with.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS, type TestSettings } from '../../harness/stack.ts'

const STRANGER = 'somebody@elsewhere.example'

const CDB_RECIPE = v.strictObject({ tcprules_static: v.string(), tcprules_cdb: v.string() })

/** A host that sends mail. */
type Client = { readonly ip: string; connect(port: number): Socket }
const LOOPBACK: readonly Client[] = ['127.0.0.1', '::1'].map(ip => ({ ip, connect: port => connect(port, ip) }))

/** The text of the second address begins with that of the first. */
const SHORT = '2001:db8::7'
const LONG = '2001:db8::7:9'

/** Hosts of a separate network, with addresses that a wrong comparison would confuse. */
function neighbours(network: TestNetwork): readonly Client[] {
  const host = network.client('192.0.2.7', SHORT, LONG)
  return [
    { ip: '192.0.2.7', connect: port => host.connect({ host: '192.0.2.1', port }) },
    { ip: SHORT, connect: port => host.connect({ host: '2001:db8::1', port, from: SHORT }) },
    { ip: LONG, connect: port => host.connect({ host: '2001:db8::1', port, from: LONG }) },
  ]
}

const freePort = (): Promise<number> =>
  new Promise(resolve => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(address !== null && typeof address === 'object' ? address.port : 0))
    })
  })

/** The mail server's reply to a recipient. */
async function recipient(client: Client, port: number, to = STRANGER, from = 'ann@example.org'): Promise<number> {
  const conversation = SmtpConversation.over(client.connect(port))
  const { code } = await conversation.askFor(to, from)
  await conversation.quit()
  return code
}

/** Sends a whole mail to another domain; the mail server must accept it. */
async function relayedMail(client: Client, port: number): Promise<void> {
  const conversation = SmtpConversation.over(client.connect(port))
  expect((await conversation.askFor(STRANGER)).code).toBe(250)
  await conversation.sendMessage('At noon')
  await conversation.quit()
}

/**
 * The gate with a service, a mail server that queries it, and grants for both loopback addresses on
 * request.
 */
class MailServerTest {
  readonly stack = new Stack()
  readonly grants: GateDatabase
  readonly clients: readonly Client[]
  #server: Program | undefined

  private constructor(grants: GateDatabase, clients: readonly Client[]) {
    this.grants = grants
    this.clients = clients
  }

  static async create(clients = LOOPBACK): Promise<MailServerTest> {
    return new MailServerTest(await GateDatabase.create(), clients)
  }

  async gate(wrap: TestSettings[string]): Promise<void> {
    this.stack.configure({ ...this.grants.settings, wrap: { ...wrap } })
    await this.stack.start('wrap')
  }

  async serve(name: string, command: readonly string[], prefix: readonly string[], port: number): Promise<void> {
    const server = new Program(name, command, { prefix, cwd: this.stack.directory })
    this.#server = server
    const isOpen = async (client: Client): Promise<boolean> => {
      const probe = client.connect(port)
      try {
        // Its greeting. A socket that was made elsewhere is connected before this code runs.
        const [greeting] = await once(probe, 'data')
        return greeting !== undefined
      } catch {
        return false // not listening yet
      } finally {
        probe.destroy()
      }
    }
    for (const client of this.clients)
      await eventually(`${name} for ${client.ip}`, async () => {
        if (server.ending !== undefined) throw new Error(server.transcript())
        return isOpen(client)
      })
  }

  /**
   * Refused before the login, accepted after it, with a whole mail, and refused after its end;
   * local mail is always accepted.
   */
  async expectRelayFollowsGrants(port: number, clients = this.clients): Promise<void> {
    for (const client of clients) {
      expect(await recipient(client, port, 'bob@example.org')).toBe(250)
      expect(await recipient(client, port)).toBeGreaterThanOrEqual(550)
      await this.grants.grant(client.ip, 'ann@example.org')
      await relayedMail(client, port)
      await this.grants.grant(client.ip, 'ann@example.org', -1)
      expect(await recipient(client, port)).toBeGreaterThanOrEqual(550)
    }
  }

  /**
   * The gate has ended, or cannot query the database: clients without a grant get 5xx, not 4xx, and
   * local mail is accepted.
   */
  async expectClosedWithoutDatabase(port: number): Promise<void> {
    await this.grants.grant(this.first.ip, 'ann@example.org')
    expect(await recipient(this.first, port)).toBe(250)
    await this.grants.database.owner.script('ALTER VIEW relay_gate RENAME TO relay_gate_away')
    try {
      await this.expectClosed(port)
    } finally {
      await this.grants.database.owner.script('ALTER VIEW relay_gate_away RENAME TO relay_gate')
    }
  }

  /** A grant for one IPv6 address does not count for an address whose text begins with it. */
  async expectNeighboursApart(port: number): Promise<void> {
    await this.grants.grant(SHORT, 'ann@example.org')
    expect(await recipient(this.at(SHORT), port)).toBe(250)
    expect(await recipient(this.at(LONG), port)).toBeGreaterThanOrEqual(550)
    await this.grants.grant(LONG, 'ann@example.org')
    expect(await recipient(this.at(LONG), port)).toBe(250)
    await this.grants.delete(LONG)
  }

  at(ip: string): Client {
    const client = this.clients.find(each => each.ip === ip)
    if (client === undefined) throw new Error(`no client at ${ip}`)
    return client
  }

  get first(): Client {
    const [client] = this.clients
    if (client === undefined) throw new Error('no client')
    return client
  }

  async expectClosed(port: number): Promise<void> {
    expect(await recipient(this.first, port)).toBeGreaterThanOrEqual(550)
    expect(await recipient(this.first, port, 'bob@example.org')).toBe(250)
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

/** Debian's own line of main.cf. */
const DEBIAN_RELAY_RESTRICTIONS =
  'smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination\n'

let postfixRuns = 0
/**
 * Folder of a Postfix. `relayRestrictions` takes the place of Debian's line in main.cf, as an
 * administrator would do it. With `chroot`
 * smtpd runs in the queue directory, as on Debian.
 */
function postfixConfiguration(
  { stack }: MailServerTest,
  relayRestrictions: string,
  { listen, chroot }: { readonly listen: readonly string[]; readonly chroot: boolean },
): string {
  const home = `${stack.directory}/postfix${postfixRuns++}`
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
shlib_directory = /usr/lib/postfix
meta_directory = ${home}
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
${DEBIAN_RELAY_RESTRICTIONS}smtpd_client_restrictions =
smtpd_peername_lookup = no
in_flow_delay = 0
`.replace(DEBIAN_RELAY_RESTRICTIONS, () => relayRestrictions),
  )
  writeFileSync(`${home}/dynamicmaps.cf`, 'pgsql postfix-pgsql.so dict_pgsql_open\n')
  writeFileSync(
    `${home}/master.cf`,
    `${listen.map(address => `${address} inet n - ${chroot ? 'y' : 'n'} - - smtpd\n`).join('')}rewrite unix - - n - - trivial-rewrite
cleanup unix n - n - 0 cleanup
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
`,
  )
  return home
}
const postfixCommand = (home: string): readonly string[] => ['/usr/lib/postfix/sbin/master', '-c', home, '-d']

describeWith([unpackedPackage('postfix')], 'Postfix in a chroot, set up as in INSTALL', () => {
  let mail: MailServerTest
  beforeAll(async () => {
    mail = await MailServerTest.create()
  })
  afterEach(() => mail.reset())
  afterAll(() => mail.end())

  test.each([
    { marker: 'inet:127.0.0.1:10040', place: '127.0.0.1:10040', withoutGate: 'closed' },
    { marker: 'socketmap:inet:', place: '127.0.0.1:10041', withoutGate: 'deferred' },
  ])('$marker', async ({ marker, place, withoutGate }) => {
    const places = { [place]: `127.0.0.1:${await freePort()}` }
    const { wrap, server } = installRecipe({ section: 'Postfix', language: 'postfix', marker }, places)
    await mail.gate(wrap)
    const port = await freePort()
    const home = postfixConfiguration(mail, server, { listen: [`127.0.0.1:${port}`, `[::1]:${port}`], chroot: true })
    await mail.serve('postfix', postfixCommand(home), inPackage('postfix'), port)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectClosedWithoutDatabase(port)
    expect(readFileSync(`${home}/mail.log`, 'utf8')).not.toMatch(/overriding earlier entry|fatal:/)
    await mail.stack.program('wrap').stop()
    if (withoutGate === 'closed') await mail.expectClosed(port)
    else for (const to of [STRANGER, 'bob@example.org']) expect(await recipient(mail.first, port, to)).toBe(451)
    await mail.gate(wrap)
    expect(await recipient(mail.first, port)).toBe(250)
  })
})

describeWith([NETWORK_NAMESPACES, unpackedPackage('postfix')], 'Postfix', () => {
  let network: TestNetwork
  let mail: MailServerTest
  beforeAll(async () => {
    network = new TestNetwork('192.0.2.1', '2001:db8::1')
    mail = await MailServerTest.create(neighbours(network))
  })
  afterEach(() => mail.reset())
  afterAll(async () => {
    await mail.end()
    network.remove()
  })

  const GROUP = `${PACKAGE_IDS.postfix}`
  const postfix = async (relayRestrictions: string): Promise<number> => {
    const port = 25
    const listen = [`192.0.2.1:${port}`, `[2001:db8::1]:${port}`]
    const home = postfixConfiguration(mail, relayRestrictions, { listen, chroot: false })
    await mail.serve('postfix', postfixCommand(home), [...network.server.prefix, ...inPackage('postfix')], port)
    return port
  }
  const restrictions = (check: string): string => `smtpd_relay_restrictions = ${check}, reject_unauth_destination\n`

  test('uses the policy service', async () => {
    const places = { '/run/auth-relay/gate': `${mail.stack.directory}/run` }
    const recipe = { section: 'Postfix', language: 'postfix', marker: 'check_policy_service { unix:' }
    const { wrap, server } = installRecipe(recipe, places)
    await mail.gate({ ...wrap, socket_group: GROUP, sender_binding: 'refuse' })
    const port = await postfix(server)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectNeighboursApart(port)
    await mail.expectClosedWithoutDatabase(port)
    expect(await recipient(mail.first, port, STRANGER, 'boss@example.org')).toBe(550)
    await mail.stack.program('wrap').stop()
    await mail.expectClosed(port)
  })

  test('uses the socketmap', async () => {
    const socket = `${mail.stack.directory}/run/socketmap.sock`
    await mail.gate({ socketmap_listen: [`unix:${socket}`], socket_group: GROUP })
    const port = await postfix(restrictions(`check_client_access socketmap:unix:${socket}:relay`))
    await mail.expectRelayFollowsGrants(port)
    await mail.expectNeighboursApart(port)
    await mail.expectClosedWithoutDatabase(port)
  })

  test.each([
    installText('Postfix', /`query = (SELECT [^`]+)`/),
    // The query that was documented before: single addresses only.
    "SELECT 'OK' FROM relay_clients WHERE address = '%s'",
  ])('queries the database itself, without the gate, for IPv4: %s', async query => {
    const map = `${mail.stack.directory}/relay-clients.cf`
    const { host, port: at, dbname, user, password } = mail.grants.reader
    writeFileSync(
      map,
      `hosts = ${host.startsWith('/') ? `unix:${host}` : `${host}:${at}`}
dbname = ${dbname}
user = ${user}
password = ${password}
query = ${query}
`,
    )
    const port = await postfix(restrictions(`check_client_access pgsql:${map}`))
    await mail.expectRelayFollowsGrants(port, [mail.at('192.0.2.7')])
    // IPv6 is always refused, because one address could not be distinguished from another.
    await mail.grants.grant(SHORT, 'ann@example.org')
    for (const ip of [SHORT, LONG]) expect(await recipient(mail.at(ip), port)).toBeGreaterThanOrEqual(550)
    await mail.grants.database.owner.script(
      "INSERT INTO allowances (net, reason, owner) VALUES ('192.0.2.0/28', '', '')",
    )
    const allowed = await recipient(mail.at('192.0.2.7'), port)
    await mail.grants.database.owner.script('DELETE FROM allowances')
    expect(allowed === 250).toBe(query.includes('may_relay'))
  })
})

/** Exim's recipe with the gate's Unix socket `run/NAME.sock`. */
const eximByUnixSocket = ({ stack }: MailServerTest, name: string) =>
  installRecipe(
    { section: 'Exim', language: 'exim', marker: 'readsocket{/run/' },
    { '/run/auth-relay/gate/query.sock': `${stack.directory}/run/${name}.sock` },
  )

/**
 * Writes a configuration with a statement of the ACL that permits relaying, and lines of its main
 * part; returns its path.
 */
function eximConfiguration({ stack }: MailServerTest, name: string, statement: string, main: string): string {
  const home = `${stack.directory}/${name}`
  for (const path of [home, `${home}/spool`, `${home}/log`]) {
    mkdirSync(path)
    chownSync(path, PACKAGE_IDS.exim, PACKAGE_IDS.exim)
  }
  const config = `${stack.directory}/${name}.conf`
  writeFileSync(
    config,
    `primary_hostname = mx.example.org
spool_directory = ${home}/spool
log_file_path = ${home}/log/%slog
${main}
host_lookup =
queue_only = true
rfc1413_query_timeout = 0s
acl_smtp_rcpt = recipient
begin acl
recipient:
  accept domains = example.org
  ${statement.trim()}
  deny message = relay not permitted
`,
    { mode: 0o644 },
  )
  return config
}

const eximListens = (port: number): string => `local_interfaces = <; 127.0.0.1 ; ::1\ndaemon_smtp_ports = ${port}`

describeWith([unpackedPackage('exim4-daemon-light')], 'Exim', () => {
  let mail: MailServerTest
  beforeAll(async () => {
    mail = await MailServerTest.create()
  })
  afterEach(() => mail.reset())
  afterAll(() => mail.end())

  test('uses readsocket', async () => {
    const port = await freePort()
    const { wrap, server } = eximByUnixSocket(mail, 'query')
    await mail.gate({ ...wrap, socket_group: `${PACKAGE_IDS.exim}`, sender_binding: 'refuse' })
    const config = eximConfiguration(mail, 'exim', server, eximListens(port))
    await mail.serve('exim', ['/usr/sbin/exim4', '-C', config, '-bdf'], inPackage('exim4-daemon-light'), port)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectClosedWithoutDatabase(port)
    expect(await recipient(mail.first, port, STRANGER, '')).toBe(250)
    const smtp = SmtpConversation.over(mail.first.connect(port))
    expect((await smtp.askFor(STRANGER)).code).toBe(250)
    for (const line of ['RSET', 'MAIL FROM:<boss@example.org>']) {
      smtp.say(line)
      await smtp.expectSmtp(/^250/)
    }
    smtp.say(`RCPT TO:<${STRANGER}>`)
    const [refusal] = await smtp.expectSmtp(/^550/)
    await smtp.quit()
    expect(refusal).toMatch(/^550.5\.7\.1 sender address does not belong to the mailbox opened/)
  })

  test('a limit counts messages, and its reason is the reply', async () => {
    const port = await freePort()
    const { wrap, server } = eximByUnixSocket(mail, 'query-limits')
    const limits = { messages_per_login: 2, recipients_per_login: 3, policy_users: [`${PACKAGE_IDS.exim}`] }
    await mail.gate({ ...wrap, socket_group: `${PACKAGE_IDS.exim}`, ...limits })
    const config = eximConfiguration(mail, 'exim-limits', server, eximListens(port))
    await mail.serve('exim', ['/usr/sbin/exim4', '-C', config, '-bdf'], inPackage('exim4-daemon-light'), port)
    await mail.grants.grant(mail.first.ip, 'ann@example.org')
    const smtp = SmtpConversation.over(mail.first.connect(port))
    expect((await smtp.askFor(STRANGER)).code).toBe(250)
    const recipients = async (...answers: readonly RegExp[]): Promise<void> => {
      for (const answer of answers) {
        smtp.say(`RCPT TO:<${STRANGER}>`)
        await smtp.expectSmtp(answer)
      }
    }
    const message = async (): Promise<void> => {
      for (const line of ['RSET', 'MAIL FROM:<ann@example.org>']) {
        smtp.say(line)
        await smtp.expectSmtp(/^250/)
      }
    }
    // The second recipient of the first message does not count as a second message.
    await recipients(/^250/)
    await message()
    await recipients(/^250/, /^450 4\.7\.1 too much mail within an hour, try again later/)
    await message()
    await recipients(/^450 4\.7\.1 too much mail/)
    await smtp.quit()
    await mail.stack.waitForLog('wrap', { event: 'mail_refused', reason: 'messages_per_login' })
  })

  test('uses a port; the gate may stop and start again', async () => {
    const port = await freePort()
    const places = { '127.0.0.1:10042': `127.0.0.1:${await freePort()}` }
    const recipe = { section: 'Exim', language: 'exim', marker: 'readsocket{inet:' }
    const { wrap, server } = installRecipe(recipe, places)
    await mail.gate(wrap)
    const config = eximConfiguration(mail, 'exim-inet', server, eximListens(port))
    await mail.serve('exim', ['/usr/sbin/exim4', '-C', config, '-bdf'], inPackage('exim4-daemon-light'), port)
    await mail.expectRelayFollowsGrants(port)
    await mail.expectClosedWithoutDatabase(port)
    await mail.stack.program('wrap').stop()
    await mail.expectClosed(port)
    await mail.gate(wrap)
    expect(await recipient(mail.first, port)).toBe(250)
  })

  test('as `exim4 -bs`, started by the gate for each connection', async () => {
    const port = await freePort()
    const { wrap, server } = eximByUnixSocket(mail, 'query-bs')
    const config = eximConfiguration(mail, 'exim-bs', server, '')
    await mail.gate({
      listen: [`127.0.0.1:${port}`, `[::1]:${port}`],
      ...wrap,
      socket_group: `${PACKAGE_IDS.exim}`,
      smtpd: [...inPackage('exim4-daemon-light'), '/usr/sbin/exim4', '-C', config, '-bs'],
      smtpd_user: '',
    })
    await mail.expectRelayFollowsGrants(port)
  })
})

describeWith([command('tcpserver', 'ucspi-tcp')], 'tcpserver with the cdb of the gate, set up as in INSTALL', () => {
  let mail: MailServerTest
  beforeAll(async () => {
    mail = await MailServerTest.create()
  })
  afterEach(() => mail.reset())
  afterAll(() => mail.end())

  test('an SMTP server behind it relays from the login until the end of the grant', async () => {
    const { directory } = mail.stack
    const recipe = { section: 'qmail and notqmail', language: 'toml', marker: 'tcprules_cdb' }
    const places = { '/etc/tcp.smtp.d': `${directory}/tcp.smtp.d`, '"/etc/tcp.smtp"': `"${directory}/tcp.smtp"` }
    const { wrap } = parse(installBlock(recipe, places))
    const { tcprules_cdb: cdb, ...rules } = v.parse(CDB_RECIPE, wrap)
    writeFileSync(rules.tcprules_static, ':allow\n')
    const own = installText(recipe.section, /^(install -d -o auth-relay-gate \/etc\/tcp\.smtp\.d)$/m)
      .replace('auth-relay-gate', `${TEST_IDS.gate}`)
      .replace('/etc/tcp.smtp.d', dirname(cdb))
    expect((await run(['sh', '-ec', own])).ending?.code).toBe(0)
    await mail.gate({ ...rules, tcprules_cdb: cdb })
    const port = await freePort()
    const smtpd = ['sh', new URL('../../harness/smtp/smtpd.sh', import.meta.url).pathname, 'example.org']
    const words = ['tcpserver', '-vHRl0', '-x', cdb, '127.0.0.1', `${port}`, ...smtpd]
    const server = new Program('tcpserver', words, {})
    const { first } = mail
    const becomes = (code: number) =>
      eventually(`the reply is ${code}`, async () => (await recipient(first, port)) === code)
    try {
      await server.waitForLine(/status: 0\//)
      expect(await recipient(first, port, 'bob@example.org')).toBe(250)
      expect(await recipient(first, port)).toBe(553)
      await mail.grants.grant(first.ip, 'ann@example.org')
      await becomes(250)
      await relayedMail(first, port)
      await mail.grants.grant(first.ip, 'ann@example.org', -1)
      await becomes(553)
      expect(await recipient(first, port, 'bob@example.org')).toBe(250)
    } finally {
      await server.stop()
    }
  })
})

describeWith([unpackedPackage('exim4-daemon-heavy')], 'Exim with PostgreSQL', () => {
  let mail: MailServerTest
  beforeAll(async () => {
    mail = await MailServerTest.create()
  })
  afterEach(() => mail.reset())
  afterAll(() => mail.end())

  test('queries the database itself, without the gate', async () => {
    const port = await freePort()
    const { host, port: at, dbname, user, password } = mail.grants.reader
    const server = host.startsWith('/') ? `(${host}/.s.PGSQL.${at})` : `${host}::${at}`
    const mayRelay = installText('Exim', /^(accept condition = .*lookup pgsql.*)$/m)
    const servers = installText('Exim', /^(hide pgsql_servers = .*)$/m)
    const documented = '(/run/postgresql/.s.PGSQL.5432)/pop3authd/authwrap/PASSWORD'
    expect(servers).toContain(documented)
    const main = `${eximListens(port)}\n${servers.replace(documented, `${server}/${dbname}/${user}/${password}`)}`
    const config = eximConfiguration(mail, 'exim', mayRelay, main)
    await mail.serve('exim', ['/usr/sbin/exim4', '-C', config, '-bdf'], inPackage('exim4-daemon-heavy'), port)
    await mail.expectRelayFollowsGrants(port)
  })
})

describeWith([NETWORK_NAMESPACES, command('m4'), unpackedPackage('sendmail-bin')], 'sendmail', () => {
  let network: TestNetwork
  let mail: MailServerTest
  beforeAll(async () => {
    // sendmail always relays for loopback.
    network = new TestNetwork('192.0.2.1', '2001:db8::1')
    mail = await MailServerTest.create(neighbours(network))
  })
  afterEach(() => mail.reset())
  afterAll(async () => {
    await mail.end()
    network.remove()
  })

  /**
   * sendmail needs a host name with a domain, a client with a name, and a socket below folders that
   * only root can write.
   */
  const START = `set -e
home=$1; sockets=$2
printf '127.0.0.1 mx.example.org localhost\\n192.0.2.7 client.example.net\\n2001:db8::7 client.example.net\\n2001:db8::7:9 client.example.net\\n' >"$home/hosts"
mount --bind "$home/hosts" /etc/hosts
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/run
mount --bind "$sockets" /mnt/run
hostname mx.example.org
m4 -D_CF_DIR_=/usr/share/sendmail/cf/ "$home/sendmail.mc" >"$home/sendmail.cf"
exec /usr/libexec/sendmail/sendmail -C"$home/sendmail.cf" "$3"`

  const PORT = 25
  const sendmailRecipe = () =>
    installRecipe(
      { section: 'sendmail', language: 'sendmail', marker: 'access_db' },
      { '/run/auth-relay/gate/socketmap.sock': '/mnt/run/socketmap.sock' },
    )
  /**
   * A folder with a configuration that uses the socketmap. sendmail's own limits of the load are
   * raised.
   */
  const configure = (name: string, options = ''): string => {
    const home = `${mail.stack.directory}/${name}`
    for (const path of [home, `${home}/queue`]) mkdirSync(path)
    writeFileSync(
      `${home}/sendmail.mc`,
      `divert(-1)dnl
include(\`/usr/share/sendmail/cf/m4/cf.m4')dnl
divert(0)dnl
OSTYPE(\`linux')dnl
define(\`confDOMAIN_NAME', \`mx.example.org')dnl
define(\`QUEUE_DIR', \`${home}/queue')dnl
define(\`ALIAS_FILE', \`')dnl
define(\`STATUS_FILE', \`')dnl
define(\`HELP_FILE', \`')dnl
define(\`confPID_FILE', \`${home}/pid')dnl
define(\`confTO_IDENT', \`0')dnl
define(\`confREFUSE_LA', \`10000')dnl
define(\`confQUEUE_LA', \`10000')dnl
define(\`confDELIVERY_MODE', \`queueonly')dnl
${options}FEATURE(\`accept_unresolvable_domains')dnl
${sendmailRecipe().server}DAEMON_OPTIONS(\`Family=inet, Addr=192.0.2.1, Port=${PORT}, Name=v4')dnl
DAEMON_OPTIONS(\`Family=inet6, Addr=IPv6:2001:db8::1, Port=${PORT}, Name=v6')dnl
MAILER(\`local')dnl
MAILER(\`smtp')dnl
LOCAL_CONFIG
Cwexample.org
`,
    )
    return home
  }

  test('looks up a client and not a domain; the gate may stop and start again', async () => {
    const home = configure('sendmail')
    const service = { socketmap_listen: [`unix:${mail.stack.directory}/run/socketmap.sock`] }
    await mail.gate(service)
    const start = ['unshare', '--uts', 'sh', '-c', START, 'start', home, `${mail.stack.directory}/run`, '-bD']
    await mail.serve('sendmail', start, [...network.server.prefix, ...inPackage('sendmail-bin')], PORT)
    await mail.expectRelayFollowsGrants(PORT)
    await mail.expectNeighboursApart(PORT)
    await mail.expectClosedWithoutDatabase(PORT)
    // A grant for one host does not permit another host to send to it.
    await mail.grants.grant('192.0.2.8', 'bob@example.org')
    await mail.grants.delete(mail.first.ip)
    expect(await recipient(mail.first, PORT, 'root@[192.0.2.8]')).toBeGreaterThanOrEqual(550)
    await mail.grants.grant(mail.first.ip, 'ann@example.org')
    await mail.stack.program('wrap').stop()
    await mail.expectClosed(PORT)
    await mail.gate(service)
    expect(await recipient(mail.first, PORT)).toBe(250)
  })

  test('writes IPv6 addresses with `::` if configured so, and every IPv6 client is refused', async () => {
    const home = configure('sendmail-compressed', "define(`confUSE_COMPRESSED_IPV6_ADDRESSES', `True')dnl\n")
    await mail.gate({ socketmap_listen: [`unix:${mail.stack.directory}/run/socketmap.sock`] })
    const start = ['unshare', '--uts', 'sh', '-c', START, 'start', home, `${mail.stack.directory}/run`, '-bD']
    await mail.serve('sendmail', start, [...network.server.prefix, ...inPackage('sendmail-bin')], PORT)
    await mail.expectRelayFollowsGrants(PORT, [mail.at('192.0.2.7')])
    await mail.grants.grant(SHORT, 'ann@example.org')
    for (const ip of [SHORT, LONG]) expect(await recipient(mail.at(ip), PORT)).toBeGreaterThanOrEqual(550)
  })

  test('as `sendmail -bs`, started by the gate for each connection', async () => {
    const home = configure('sendmail-bs')
    const port = await freePort()
    const start = ['unshare', '--uts', 'sh', '-c', START, 'start', home, `${mail.stack.directory}/run`, '-bs']
    await mail.gate({
      listen: [`127.0.0.1:${port}`, `[::1]:${port}`],
      smtpd: [...inPackage('sendmail-bin'), ...start],
      smtpd_user: '',
    })
    for (const client of LOOPBACK) expect(await recipient(client, port, 'bob@example.org')).toBe(250)
    expect(await mail.stack.waitForLog('wrap', { event: 'smtpd_ended', status: '0' })).toBeDefined()
  })
})
