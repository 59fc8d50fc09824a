import { execFileSync } from 'node:child_process'
import { parseRelayAnswer } from '../../src/wire/services/relay-query.ts'
import type { NetworkNamespace, TestNetwork } from '../harness/hosts/network-namespace.ts'
import { skewedClock } from '../harness/hosts/skewed-clock.ts'
import { parseLogLine } from '../harness/processes/log-line.ts'
import { Stack, TEST_PASSWORD, type TestSettings } from '../harness/stack.ts'

const ROLE_PASSWORDS = { writer: 'writer of the tests', reader: 'reader of the tests' }

/**
 * Networks of the clients. They have an address for each login of a test, and belong to one host.
 */
export const CLIENT_NETWORKS = { v4: '10.64.0.0/10', v6: '2001:db8:0:99::/64' }

export type SiteOptions = {
  readonly databases: readonly string[]
  readonly requireSync: boolean
  /** Seconds by which the host's clock is ahead. */
  readonly clock: number
}

/** A host with programs of auth-relay, and the settings by which they find the database. */
function settingsOf(stack: Stack, { databases, requireSync }: SiteOptions, own: TestSettings): TestSettings {
  return {
    ...own,
    database: {
      dbhost: databases.join(','),
      dbpass_file: stack.secret('dbpass', ROLE_PASSWORDS.writer),
      wrap_dbpass_file: stack.secret('wrap-dbpass', ROLE_PASSWORDS.reader),
      require_sync: requireSync,
    },
    grants: { exp_time: 86_400 },
  }
}

/** A host for clients, with connections from any address of CLIENT_NETWORKS. */
export class ClientHost {
  readonly host: NetworkNamespace

  constructor(network: TestNetwork) {
    this.host = network.client('192.0.2.100', '2001:db8::100')
    // A route can make an address local only for IPv4.
    execFileSync('ip', ['netns', 'exec', this.host.name, 'sysctl', '-qw', 'net.ipv6.ip_nonlocal_bind=1'])
    for (const net of Object.values(CLIENT_NETWORKS)) {
      const family = net.includes(':') ? '-6' : '-4'
      execFileSync('ip', ['-n', this.host.name, family, 'route', 'add', 'local', net, 'dev', 'lo'])
    }
  }

  /** Lets another host answer for those addresses. */
  static routeBack(host: NetworkNamespace): void {
    execFileSync('ip', ['-n', host.name, 'route', 'add', CLIENT_NETWORKS.v4, 'via', '192.0.2.100'])
    execFileSync('ip', ['-n', host.name, '-6', 'route', 'add', CLIENT_NETWORKS.v6, 'via', '2001:db8::100'])
  }
}

/** Result of a POP3 login. */
export type LoginResult = {
  readonly ok: boolean
  /** The result in popup's log: committed, queued or refused; undefined without a log line. */
  readonly grant: string | undefined
  /** Milliseconds from PASS to its reply. */
  readonly waited: number
  /** Milliseconds of them that popup waited for the grant. */
  readonly grantWait: number
}

/** Longest time of a POP3 session, in milliseconds; a later reply counts as missing. */
const LONGEST_SESSION = 60_000

/** popup and authd on one host. */
export class Pop3Host {
  readonly stack = new Stack()
  readonly host: NetworkNamespace
  readonly #v4: string
  readonly #v6: string
  readonly #prefix: readonly string[]
  #read = 0
  readonly #grants = new Map<string, { readonly grant: string; readonly grantWait: number }>()

  private constructor(network: TestNetwork, v4: string, v6: string, clock: number) {
    this.host = network.client(v4, v6)
    this.#v4 = v4
    this.#v6 = v6
    this.#prefix = [...this.host.prefix, ...skewedClock(clock)]
    ClientHost.routeBack(this.host)
  }

  static async start(network: TestNetwork, v4: string, v6: string, options: SiteOptions): Promise<Pop3Host> {
    const made = new Pop3Host(network, v4, v6, options.clock)
    const { stack } = made
    stack.account('ann', ['Subject: hello\n\nhello\n'])
    stack.configure(settingsOf(stack, options, { popup: { listen: [`${v4}:110`, `[${v6}]:110`] } }))
    return made
  }

  /** Makes tables and roles with the superuser's password. */
  async migrate(superuser: string): Promise<void> {
    const file = this.stack.secret('postgres.pass', superuser)
    const words = ['migrate', '--user', 'postgres', '--password-file', file, '--config', this.stack.config]
    const done = await this.stack.run('auth-relay', words, { prefix: this.host.prefix })
    if (!/Migrated|up to date/i.test(done.lines.join('\n'))) throw new Error(done.transcript())
  }

  async startPrograms(): Promise<void> {
    await this.stack.start('authd', { prefix: this.#prefix })
    await this.stack.start('popup', { prefix: this.#prefix })
  }

  /** A whole POP3 session from that address. */
  async login(clients: ClientHost, from: string): Promise<LoginResult> {
    const host = from.includes(':') ? this.#v6 : this.#v4
    const socket = clients.host.connect({ host, port: 110, from })
    socket.setEncoding('latin1')
    let text = ''
    let wake = (): void => {}
    socket.on('data', chunk => {
      text += String(chunk)
      wake()
    })
    socket.on('error', () => wake())
    socket.on('close', () => wake())
    let isLate = false
    const deadline = setTimeout(() => {
      isLate = true
      wake()
    }, LONGEST_SESSION)
    const reply = async (lines: number): Promise<string> => {
      while (text.split('\r\n').length <= lines && !socket.destroyed && !isLate) {
        await new Promise<void>(resolve => {
          wake = resolve
        })
      }
      return text.split('\r\n')[lines - 1] ?? ''
    }
    try {
      if (!(await reply(1)).startsWith('+OK')) return { ok: false, grant: undefined, waited: 0, grantWait: 0 }
      socket.write('USER ann\r\n')
      await reply(2)
      const sent = performance.now()
      socket.write(`PASS ${TEST_PASSWORD}\r\n`)
      const answer = await reply(3)
      const waited = performance.now() - sent
      socket.write('QUIT\r\n')
      await reply(4)
      const { grant, grantWait = 0 } = this.#grantOf(from) ?? {}
      return { ok: answer.startsWith('+OK'), grant, waited, grantWait }
    } finally {
      clearTimeout(deadline)
      socket.destroy()
    }
  }

  /** popup's log line for the login from this address, which logs in once. */
  #grantOf(ip: string): { readonly grant: string; readonly grantWait: number } | undefined {
    const { lines } = this.stack.program('popup')
    for (const line of lines.slice(this.#read)) {
      const fields = parseLogLine(line)?.fields ?? {}
      const { event, ip: from = '', grant = '', grant_ms: grantWait } = fields
      if (event === 'login_accepted') this.#grants.set(from, { grant, grantWait: Number(grantWait ?? 0) })
    }
    this.#read = lines.length
    return this.#grants.get(ip)
  }

  block(target: string): Promise<number | null> {
    const words = ['block', target, '--for', '24h', '--reason', 'test', '--config', this.stack.config]
    return this.stack
      .run('auth-relay', words, { prefix: this.#prefix })
      .then(program => program.ended)
      .then(({ code }) => code)
  }
}

export type GateAnswer = 'yes' | 'no' | 'later' | 'unknown'

/** The resident gate on one host, reached through its query service. */
export class GateHost {
  readonly stack = new Stack()
  readonly host: NetworkNamespace
  readonly #prefix: readonly string[]
  readonly #waiting: ((answer: GateAnswer) => void)[] = []
  #socket: ReturnType<NetworkNamespace['connect']> | undefined

  private constructor(network: TestNetwork, v4: string, v6: string, clock: number) {
    this.host = network.client(v4, v6)
    this.#prefix = [...this.host.prefix, ...skewedClock(clock)]
  }

  static async start(network: TestNetwork, v4: string, v6: string, options: SiteOptions): Promise<GateHost> {
    const made = new GateHost(network, v4, v6, options.clock)
    const wrap = { query_listen: ['127.0.0.1:4225'] }
    made.stack.configure(settingsOf(made.stack, options, { wrap }))
    return made
  }

  async startPrograms(): Promise<void> {
    await this.stack.start('wrap', { prefix: this.#prefix })
  }

  /** The gate's answer for an address, which comes within wrap_timeout. */
  async ask(ip: string): Promise<GateAnswer> {
    const socket = this.#connected()
    return new Promise(resolve => {
      this.#waiting.push(resolve)
      socket.write(`relay v=1 ip=${ip}\n`)
    })
  }

  close(): void {
    this.#socket?.destroy()
  }

  #connected(): ReturnType<NetworkNamespace['connect']> {
    if (this.#socket !== undefined && !this.#socket.destroyed) return this.#socket
    const socket = this.host.connect({ host: '127.0.0.1', port: 4225 })
    this.#socket = socket
    let text = ''
    socket.setEncoding('utf8')
    socket.on('error', () => {})
    socket.on('close', () => {
      for (const answer of this.#waiting.splice(0)) answer('unknown')
    })
    socket.on('data', chunk => {
      text += String(chunk)
      const lines = text.split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) this.#waiting.shift()?.(parseRelayAnswer(line)?.verdict ?? 'unknown')
    })
    return socket
  }
}
