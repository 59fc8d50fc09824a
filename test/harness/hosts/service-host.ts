import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { text as textOfStream } from 'node:stream/consumers'
import fc from 'fast-check'
import { expect } from 'vitest'
import type { Database } from '../../../src/database/database.ts'
import { type Device, DeviceAdmin } from '../../../src/grants/devices/device-admin.ts'
import { createGrantAdmin } from '../../../src/grants/grant-admin.ts'
import type { GrantPolicy } from '../../../src/grants/grant-policy.ts'
import type { BlockTarget } from '../../../src/grants/grant-store.ts'
import { createGrantWriter } from '../../../src/grants/grant-writer.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { type Network, NetworkSet, parseNetwork } from '../../../src/wire/ip-address.ts'
import { TcpRulesFile } from '../../../src/wrap/gate/tcp-rules-file.ts'
import { ip as ipFrom } from '../addresses.ts'
import { eventually } from '../eventually.ts'
import { GateDatabase } from '../postgres/gate-database.ts'
import { grantPolicy } from '../postgres/grant-policy.ts'
import { Program, run } from '../processes/program.ts'
import { assertRuns } from '../runner/check-runs.ts'
import { command, NETWORK_NAMESPACES, type Need } from '../runner/describe-with.ts'
import {
  type Address,
  EMBEDDINGS,
  embed,
  type Net,
  netOf,
  netText,
  type OracleMutant,
  octetsOf,
  RelayOracle,
  type Site,
  spellingsOf,
  textOf,
  v4,
  v6,
} from '../smtp/relay-oracle.ts'
import { Stack, TEST_IDS } from '../stack.ts'
import { TestNetwork } from './network-namespace.ts'
import { fileInPackage, unpackedPackage } from './unpacked-package.ts'

const OWN = [v4(192, 0, 2, 1), v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)] as const
const PROXIES = [v4(203, 0, 113, 9), v6(0x2001, 0xdb8, 1, 0, 0, 0, 0, 5)] as const
const NEVER_GRANT = [netOf(v4(198, 51, 100, 8), 29), netOf(v6(0x2001, 0xdb8, 0xf), 48)] as const
/** Two grant policies. */
export const SITES: readonly Site[] = [
  { ipv6Prefix: 64, denyPrivate: false },
  { ipv6Prefix: 128, denyPrivate: true },
].map(({ ipv6Prefix, denyPrivate }) => ({
  ipv6Prefix: ipv6Prefix === 64 ? 64 : 128,
  denyPrivate,
  neverGrant: NEVER_GRANT,
  proxies: PROXIES.map(address => netOf(address, address.family === 4 ? 32 : 128)),
  own: OWN,
}))

const IPV4 = [
  v4(192, 0, 2, 1),
  v4(192, 0, 2, 7),
  v4(192, 0, 2, 8),
  v4(10, 1, 2, 3),
  v4(100, 64, 0, 9),
  v4(198, 51, 100, 9),
  v4(198, 51, 100, 200),
  v4(203, 0, 113, 9),
  v4(203, 0, 113, 10),
  v4(127, 0, 0, 5),
  v4(169, 254, 1, 1),
]
const IPV6 = [
  v6(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7),
  v6(0x2001, 0xdb8, 1, 0, 0, 0, 7, 9),
  v6(0x2001, 0xdb8, 1, 0, 0, 0, 0, 5),
  v6(0x2001, 0xdb8, 1, 1, 0, 0, 0, 7),
  v6(0x2001, 0xdb8, 2, 3, 4, 5, 6, 7),
  v6(0x2001, 0xdb8, 2, 3, 4, 0, 6, 7),
  v6(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1),
  v6(0x2001, 0xdb8, 0x64, 0, 0, 1, 0, 1),
  v6(0x64, 0xff9b, 1, 0, 0, 0, 0xc000, 0x207),
  v6(0xfd00, 0, 0, 0, 0, 0, 0, 7),
  v6(0xfe80, 0, 0, 0, 0, 0, 0, 1),
  v6(0, 0, 0, 0, 0, 0, 0, 1),
]

const ipv4 = fc.constantFrom(...IPV4)
const address = fc.oneof(
  { weight: 3, arbitrary: ipv4 },
  { weight: 3, arbitrary: fc.constantFrom(...IPV6) },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.constantFrom(...Object.values(EMBEDDINGS)), ipv4).map(([way, four]) => embed(way, four)),
  },
)
const net = fc.oneof(
  address.map(each => netOf(each, each.family === 4 ? 32 : 128)),
  fc
    .tuple(address, fc.constantFrom(16, 24, 28, 29, 30, 31), fc.constantFrom(32, 44, 48, 63, 64, 65, 96, 112, 120, 127))
    .map(([each, short, long]) => netOf(each, each.family === 4 ? short : long)),
)
const login = fc.constantFrom('ann', 'Ann', 'ben', 'copier')
/** Seconds until a rule ends; null: without end; negative: it has ended. */
const seconds = fc.constantFrom(null, null, 3600, -60)
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('login'),
      ip: address,
      login,
      ago: fc.constantFrom(0, 0, 900, 1700, 1900, 5000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('block'), net, seconds }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('block-login'), login, seconds }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('allow'), net, seconds }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unblock'), net }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unblock-login'), login }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('device'),
      login,
      networks: fc.array(net, { maxLength: 2 }),
      hasEnded: fc.boolean(),
    }),
  },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

const queried = fc.record({ ip: address, spelling: fc.nat(3) })
type Queried = typeof queried extends fc.Arbitrary<infer T> ? T : never
/** Steps of a history, and addresses that no step names. */
export const history = fc.record({
  steps: fc.array(step, { minLength: 6, maxLength: 16 }),
  others: fc.array(queried, { minLength: 3, maxLength: 6 }),
  spelling: fc.nat(3),
})
type History = typeof history extends fc.Arbitrary<infer T> ? T : never

function queriesOf({ steps, others, spelling }: History): readonly Queried[] {
  const named = steps.flatMap((each, index) =>
    'ip' in each ? [{ ip: each.ip, spelling: (spelling + index) % 4 }] : [],
  )
  const bases = steps.flatMap((each, index) =>
    'net' in each ? [{ ip: { family: each.net.family, bits: each.net.bits }, spelling: index % 4 }] : [],
  )
  const all = [...named, ...bases, ...others]
  return all.filter(({ ip }, index) => all.findIndex(other => textOf(other.ip) === textOf(ip)) === index)
}

/** The commands and rights that such a host needs. */
export const SERVICE_NEEDS: readonly Need[] = [
  NETWORK_NAMESPACES,
  command('tcpserver', 'ucspi-tcp'),
  command('psql', 'postgresql-client'),
  unpackedPackage('ucspi-tcp-ipv6'),
]

/** Planted errors with which the oracle opens less than the services. The others open more. */
const OPENS_LESS: ReadonlySet<OracleMutant> = new Set(['a block has no end', 'a grant is for the address alone'])

/**
 * Runs the comparison with an oracle that has a planted error. True if the comparison found wrong
 * answers, all of the kind that this error gives. Rejects with any other error.
 */
export async function isFound(mutant: OracleMutant, host: ServiceHost, site: Site, seed: number): Promise<boolean> {
  const { failed, errorInstance } = await fc.check(
    fc.asyncProperty(history, async each => {
      await host.compare(each, new RelayOracle(site, mutant), 'cheap')
    }),
    { numRuns: 500, seed, endOnFailure: true },
  )
  const wrong: unknown = errorInstance instanceof Error ? Reflect.get(errorInstance, 'actual') : undefined
  if (failed && !Array.isArray(wrong)) throw errorInstance
  const ending = OPENS_LESS.has(mutant) ? ': yes, not no' : ': no, not yes'
  return Array.isArray(wrong) && wrong.length > 0 && wrong.every(each => String(each).endsWith(ending))
}

/**
 * Compares `cases` random histories with the oracle and returns the number of addresses that might
 * relay in all of them.
 */
export async function compareMany(host: ServiceHost, site: Site, cases: number, seed: number): Promise<number> {
  let open = 0
  await assertRuns(
    history,
    async each => {
      open += await host.compare(each, new RelayOracle(site), 'all')
    },
    { numRuns: cases, seed, interruptAfterTimeLimit: 30_000 + cases * 10_000 },
  )
  return open
}

const GATE_PORT = 25
const TCPSERVER_PORT = 26
const TCPSERVER6_PORT = 27

/**
 * A host with a gate, two tcpservers that read its cdb, and a database. A client can connect from
 * any address.
 */
export class ServiceHost {
  readonly #site: Site
  readonly #network: TestNetwork
  readonly #stack: Stack
  readonly #grants: GateDatabase
  readonly #policy: GrantPolicy
  readonly #writer: Database
  #servers: readonly Program[] = []
  #cases = 0

  private constructor(site: Site, grants: GateDatabase) {
    this.#site = site
    this.#network = new TestNetwork()
    this.#stack = new Stack()
    this.#grants = grants
    this.#writer = grants.database.open('pop3authd')
    this.#policy = grantPolicy({
      ipv6Prefix: site.ipv6Prefix,
      denyPrivate: site.denyPrivate,
      neverGrant: new NetworkSet(site.neverGrant.map(networkFrom)),
      trusted: { 'popup.proxy_trust': new NetworkSet(site.proxies.map(networkFrom)) },
      ownAddresses: () => new Set(OWN.map(each => ipFrom(textOf(each)))),
      customers: new CustomerNetworks([EMBEDDINGS.site96.net, EMBEDDINGS.site64.net].map(networkFrom)),
    })
  }

  static async start(site: Site): Promise<ServiceHost> {
    const host = new ServiceHost(site, await GateDatabase.create())
    await host.#start()
    return host
  }

  async #start(): Promise<void> {
    const { directory } = this.#stack
    const { prefix } = this.#network.server
    // Packets for every address stay on this host, and a client may bind to any address.
    for (const words of [
      ...OWN.map(each => ['ip', 'addr', 'add', textOf(each), 'dev', 'lo']),
      ['ip', 'route', 'add', 'local', 'default', 'dev', 'lo'],
      ['ip', '-6', 'route', 'add', 'local', 'default', 'dev', 'lo'],
      ['sysctl', '-qw', 'net.ipv6.ip_nonlocal_bind=1'],
    ]) {
      const { ending, lines } = await run([...prefix, ...words])
      if (ending?.code !== 0) throw new Error(`${words.join(' ')}: ${lines.join('\n')}`)
    }
    const smtpd = `${directory}/banner.sh`
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's, not ours
    writeFileSync(smtpd, '#!/bin/sh\necho "220 ${RELAYCLIENT+open} $TCPREMOTEIP"\n')
    chmodSync(smtpd, 0o755)
    mkdirSync(`${directory}/cdb`)
    chownSync(`${directory}/cdb`, TEST_IDS.gate, TEST_IDS.gate)
    this.#stack.configure({
      ...this.#grants.settings,
      grants: {
        ipv6_prefix: this.#site.ipv6Prefix,
        deny_private: this.#site.denyPrivate,
        never_grant: this.#site.neverGrant.map(netText),
        nat64_prefixes: [EMBEDDINGS.site96.net, EMBEDDINGS.site64.net].map(netText),
      },
      popup: { proxy_trust: this.#site.proxies.map(netText) },
      wrap: {
        listen: [`*:${GATE_PORT}`],
        proxy_trust: ['127.0.0.1/32'],
        smtpd: [smtpd],
        policy_listen: [`unix:${this.#socket('policy')}`],
        socketmap_listen: [`unix:${this.#socket('socketmap')}`],
        query_listen: [`unix:${this.#socket('query')}`],
        tcprules_cdb: this.#cdb,
      },
    })
    await createGrantWriter(this.#writer, this.#policy).publishUngrantable()
    await this.#stack.start('wrap', { prefix })
    const tcpserver = (file: string, ip: string, port: number): Program =>
      new Program('tcpserver', [file, '-vHRl', 'mx', '-x', this.#cdb, ip, String(port), smtpd], { prefix })
    this.#servers = [
      tcpserver('tcpserver', '0.0.0.0', TCPSERVER_PORT),
      tcpserver(fileInPackage('ucspi-tcp-ipv6', '/usr/bin/tcpserver'), '::0', TCPSERVER6_PORT),
    ]
    for (const [server, port] of [
      [this.#servers[0], TCPSERVER_PORT],
      [this.#servers[1], TCPSERVER6_PORT],
    ] as const)
      await eventually(`tcpserver on port ${port} answers`, async () => {
        if (server?.ending !== undefined) throw new Error(server.transcript())
        await this.#relays(v4(192, 0, 2, 7), port)
        return true
      })
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) await server.stop()
    await this.#stack.stop()
    await this.#grants.remove()
    this.#network.remove()
  }

  get #cdb(): string {
    return `${this.#stack.directory}/cdb/smtp.cdb`
  }

  #socket(name: string): string {
    return `${this.#stack.directory}/run/${name}.sock`
  }

  /**
   * Applies the history, queries each service (or only those that start no process), and returns
   * the number of addresses that may relay.
   */
  async compare(each: History, oracle: RelayOracle, services: 'all' | 'cheap'): Promise<number> {
    await this.#grants.database.owner.script('TRUNCATE grants, blocks, allowances, devices, device_logins, login_event')
    await this.#perform(each.steps, oracle)
    const queries = queriesOf(each)
    if (services === 'all') await this.#waitForCdb()
    const answers = await (services === 'all' ? this.#answers(queries) : this.#cheapAnswers(queries))
    const expected = queries.map(({ ip }) => oracle.mayRelay(ip))
    const wrong = answers.flatMap(({ service, relay }) =>
      relay.flatMap((isOpen, index) => {
        const query = queries[index]
        if (isOpen === undefined || query === undefined) return []
        const wanted =
          service.table === undefined ? (expected[index] ? 'yes' : 'no') : oracle.listed(query.ip, service.table)
        if (wanted === 'either' || (wanted === 'yes') === isOpen) return []
        return [`${service.name}: ${textOf(query.ip)} (${spelled(query)}): ${isOpen ? 'yes' : 'no'}, not ${wanted}`]
      }),
    )
    const what = each.steps.map(one => JSON.stringify(one, (_, value: unknown) => shown(value))).join('\n')
    expect(wrong, what).toEqual([])
    return expected.filter(isOpen => isOpen).length
  }

  async #perform(steps: readonly Step[], oracle: RelayOracle): Promise<void> {
    const writer = createGrantWriter(this.#writer, this.#policy)
    const devices = new DeviceAdmin(this.#writer)
    const known = new Set<string>()
    const rule = (ends: number | null) => ({
      forSeconds: ends === null ? null : Math.abs(ends),
      reason: 'tests',
      owner: 'root',
    })
    // A row that has ended must begin before its end.
    const administrator = (ends: number | null) =>
      createGrantAdmin(this.#writer, this.#policy, {
        now: () => (ends === null || ends > 0 ? null : new Date(Date.now() + 2 * ends * 1000)),
      })
    const endOf = (ends: number | null): number => ends ?? Infinity
    for (const each of steps) {
      switch (each.kind) {
        case 'login': {
          const at = each.ago === 0 ? null : new Date(Date.now() - each.ago * 1000)
          const ip = ipFrom(textOf(each.ip))
          const event = { id: '1.1', ip, daemon: 'popup', tls: true, method: 'pass', user: each.login } as const
          await writer.record([{ event, at }])
          oracle.logIn(each.ip, each.login, each.ago)
          break
        }
        case 'block':
          await administrator(each.seconds).block(aboutNet(each.net), rule(each.seconds))
          oracle.block(each.net, endOf(each.seconds))
          break
        case 'block-login':
          await administrator(each.seconds).block({ kind: 'login', login: each.login }, rule(each.seconds))
          oracle.blockLogin(each.login, endOf(each.seconds))
          break
        case 'unblock':
          await administrator(null).unblock(aboutNet(each.net))
          oracle.unblock(each.net)
          break
        case 'unblock-login':
          await administrator(null).unblock({ kind: 'login', login: each.login })
          oracle.unblockLogin(each.login)
          break
        case 'allow': {
          const done = await administrator(each.seconds).allow(networkFrom(each.net), rule(each.seconds))
          if (!('refused' in done)) oracle.allow(each.net, endOf(each.seconds))
          break
        }
        case 'device': {
          const name = each.login.toLowerCase()
          const refused = await devices.store(deviceOf(name, each.networks, each.hasEnded), !known.has(name))
          expect(refused).toBeUndefined()
          known.add(name)
          oracle.setDevice(each.login, each)
          break
        }
      }
    }
  }

  /** Waits until the cdb contains the last change: each case has its own marker address. */
  async #waitForCdb(): Promise<void> {
    this.#cases += 1
    const last = v4(198, 18, (this.#cases >> 8) & 255, this.#cases & 255)
    const request = { forSeconds: null, reason: 'tests', owner: 'root' }
    await createGrantAdmin(this.#writer, this.#policy).allow(networkFrom(netOf(last, 32)), request)
    await eventually('the cdb holds the last allowance', () => this.#isOpenInCdb(last))
  }

  #isOpenInCdb(ip: Address): boolean {
    const { allow, environment } = new TcpRulesFile(this.#cdb).find({ ip: ipFrom(textOf(ip)) })
    return allow && environment['RELAYCLIENT'] !== undefined
  }

  async #cheapAnswers(queries: readonly Queried[]): Promise<readonly Answers[]> {
    const texts = queries.map(spelled)
    const [policy, relayMap, accessMap, query, view] = await Promise.all([
      this.#askPolicy(texts),
      this.#askSocketmap(texts.map(text => `relay ${text}`)),
      this.#askSocketmap(texts.map(text => `access Connect:${text.includes(':') ? `[${text}]` : text}`)),
      this.#askQuery(texts),
      this.#askPsql(queries.map(({ ip }) => textOf(ip))),
    ])
    return [
      { service: { name: 'policy' }, relay: policy },
      { service: { name: 'socketmap relay' }, relay: relayMap },
      { service: { name: 'socketmap access' }, relay: accessMap },
      { service: { name: 'query' }, relay: query },
      { service: { name: 'SQL, network', table: 'view' }, relay: view.map(({ network }) => network) },
      { service: { name: 'SQL, may_relay' }, relay: view.map(({ function: answer }) => answer) },
    ]
  }

  /** Includes the services that start a process for each answer. */
  async #answers(queries: readonly Queried[]): Promise<readonly Answers[]> {
    const [cheap, gate, proxied, exec, tcpserver, tcpserver6] = await Promise.all([
      this.#cheapAnswers(queries),
      all(queries, ({ ip }) => (canConnect(ip) ? this.#relays(ip, GATE_PORT) : undefined)),
      all(queries, ({ ip }) => this.#relays(v4(127, 0, 0, 1), GATE_PORT, proxyHeader(ip))),
      this.#askExec(queries.map(spelled)),
      all(queries, ({ ip }) => (ip.family === 4 ? this.#relays(ip, TCPSERVER_PORT) : undefined)),
      all(queries, ({ ip }) => (canConnect(ip) ? this.#relays(ip, TCPSERVER6_PORT) : undefined)),
    ])
    return [
      ...cheap,
      { service: { name: 'gate' }, relay: gate },
      { service: { name: 'gate behind a proxy' }, relay: proxied },
      { service: { name: 'exec mode' }, relay: exec },
      { service: { name: 'cdb, bit by bit', table: 'bits' }, relay: queries.map(({ ip }) => this.#isOpenInCdb(ip)) },
      { service: { name: 'tcpserver', table: 'texts' }, relay: tcpserver },
      { service: { name: 'tcpserver with IPv6', table: 'texts' }, relay: tcpserver6 },
    ]
  }

  /** Whether the smtpd behind a port accepts a relayed recipient from the client address `from`. */
  async #relays(from: Address, port: number, header: Uint8Array = new Uint8Array()): Promise<boolean> {
    const to = from.family === 4 ? '127.0.0.1' : '::1'
    const client = this.#network.server.connect({ host: to, port, from: textOf(from) })
    if (header.length > 0) client.write(header)
    const received = await textFrom(client)
    if (!received.startsWith('220 '))
      throw new Error(`${textOf(from)} at port ${port} received ${JSON.stringify(received)}`)
    return received.startsWith('220 open')
  }

  async #askPolicy(texts: readonly string[]): Promise<readonly boolean[]> {
    const requests = texts.map(text => `request=smtpd_access_policy\nclient_address=${text}\n\n`)
    const received = await this.#converse('policy', requests.join(''))
    return answered(texts, received.split('\n\n').slice(0, -1), { 'action=OK': true, 'action=DUNNO': false })
  }

  async #askSocketmap(keys: readonly string[]): Promise<readonly boolean[]> {
    const received = await this.#converse('socketmap', keys.map(key => `${Buffer.byteLength(key)}:${key},`).join(''))
    const answers = [...received.matchAll(/\d+:([^,]*),/g)].map(([, answer = '']) => answer)
    return answered(keys, answers, { 'OK OK': true, 'OK RELAY': true, 'NOTFOUND ': false })
  }

  async #askQuery(texts: readonly string[]): Promise<readonly boolean[]> {
    const received = await this.#converse('query', texts.map(text => `relay v=1 ip=${text}\n`).join(''))
    const words = received.split('\n').slice(0, -1)
    return answered(
      texts,
      words.map(line => line.split(' ')[0] ?? ''),
      { yes: true, no: false },
    )
  }

  async #converse(name: string, request: string): Promise<string> {
    const socket = connect({ path: this.#socket(name), allowHalfOpen: true })
    socket.end(request)
    return textFrom(socket)
  }

  /**
   * Queries of mail servers that use SQL: Exim looks up the network, Postfix calls the function,
   * which knows only IPv4.
   */
  async #askPsql(
    texts: readonly string[],
  ): Promise<readonly { readonly network: boolean; readonly function: boolean | undefined }[]> {
    const { host, port, dbname, user, password } = this.#grants.reader
    const input = texts
      .map(text => `SELECT EXISTS (SELECT FROM relay_clients WHERE network >>= inet '${text}'), may_relay('${text}');`)
      .join('\n')
    const { lines } = await run(['psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-F', ' '], {
      input,
      env: { PGHOST: host, PGPORT: String(port), PGDATABASE: dbname, PGUSER: user, PGPASSWORD: password },
    })
    if (lines.length !== texts.length) throw new Error(lines.join('\n'))
    return lines.map((line, index) => {
      const [network, answer] = line.split(' ')
      return { network: network === 't', function: texts[index]?.includes(':') === true ? undefined : answer === 't' }
    })
  }

  /**
   * A process for each connection costs 0.1 s, so only two addresses are checked: one at the
   * database and one at the gate.
   */
  async #askExec(texts: readonly string[]): Promise<readonly (boolean | undefined)[]> {
    const chosen = [this.#cases % texts.length, (this.#cases * 7 + 1) % texts.length]
    const ways = [['--config', this.#stack.config], { WRAP_ASK: `unix:${this.#socket('query')}` }] as const
    const answers = new Map<number, boolean>()
    for (const [index, way] of ways.entries()) {
      const at = chosen[index] ?? 0
      const flags = Array.isArray(way) ? way : []
      const environment = Array.isArray(way) ? {} : way
      const smtpd = `${this.#stack.directory}/banner.sh`
      const { lines } = await run(
        [...this.#network.server.prefix, process.execPath, `${root}dist/wrap.cjs`, ...flags, smtpd],
        { env: { ...environment, TCPREMOTEIP: texts[at] ?? '', PROTO: 'TCP' } },
      )
      const banner = lines.find(line => line.startsWith('220 '))
      if (banner === undefined || lines.some(line => line.includes('event=decision_failed')))
        throw new Error(lines.join('\n'))
      answers.set(at, banner.startsWith('220 open'))
    }
    return texts.map((_, index) => answers.get(index))
  }
}

/** `table`: a table, which may omit addresses that it cannot represent exactly. */
type Service = { readonly name: string; readonly table?: Parameters<RelayOracle['listed']>[1] }
/** Undefined: the service was not queried. */
type Answers = { readonly service: Service; readonly relay: readonly (boolean | undefined)[] }

const root = new URL('../../..', import.meta.url).pathname

const spelled = ({ ip, spelling }: Queried): string => spellingsOf(ip)[spelling] ?? textOf(ip)

/** A client with a link-local address has a zone. */
const canConnect = (ip: Address): boolean => !textOf(ip).startsWith('fe80:')

/** PROXY protocol, version 2. */
function proxyHeader(ip: Address): Buffer {
  const octets = octetsOf(ip)
  const isIpv4 = ip.family === 4
  const source = isIpv4 ? octets.subarray(12) : octets
  const length = isIpv4 ? 12 : 36
  const ends = Buffer.concat([source, Buffer.alloc(source.length, 1), Buffer.of(0x10, 0, 0, 25)])
  const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
  return Buffer.concat([signature, Buffer.of(0x21, isIpv4 ? 0x11 : 0x21, 0, length), ends])
}

function textFrom(socket: Socket): Promise<string> {
  socket.setTimeout(20_000, () => socket.destroy(new Error('no answer within 20 s')))
  return textOfStream(socket)
}

/** One connection after the other, because a hundred at once would exceed the limit. */
async function all<T, R>(
  each: readonly T[],
  ask: (one: T) => Promise<R> | undefined,
): Promise<readonly (R | undefined)[]> {
  const answers: (R | undefined)[] = []
  for (const one of each) answers.push(await ask(one))
  return answers
}

/** One answer for each query, and each answer has a known form. */
function answered(
  queries: readonly string[],
  answers: readonly string[],
  meanings: Readonly<Record<string, boolean>>,
): readonly boolean[] {
  if (answers.length !== queries.length) throw new Error(`${queries.length} queries, ${answers.join('|')}`)
  return answers.map((answer, index) => {
    const relay = meanings[answer]
    if (relay === undefined) throw new Error(`${queries[index]}: ${answer}`)
    return relay
  })
}

const shown = (value: unknown): unknown => {
  if (typeof value !== 'object' || value === null || !('bits' in value) || !('family' in value)) return value
  const { family, bits } = value
  if (typeof bits !== 'bigint' || (family !== 4 && family !== 6)) return value
  return 'length' in value ? `${textOf({ family, bits })}/${String(value.length)}` : textOf({ family, bits })
}

function networkFrom(each: Net): Network {
  const network = parseNetwork(netText(each))
  if (network === undefined) throw new Error(`not a network: ${netText(each)}`)
  return network
}

const aboutNet = (each: Net): BlockTarget => ({ kind: 'network', network: networkFrom(each) })

const deviceOf = (name: string, networks: readonly Net[], hasEnded: boolean): Device => ({
  name,
  logins: [name],
  senders: [],
  networks: networks.map(netText),
  places: [],
  recipientDomains: [],
  messagesPerHour: 0,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  until: hasEnded ? new Date(Date.now() - 3_600_000) : null,
  owner: 'root',
  note: '',
})
