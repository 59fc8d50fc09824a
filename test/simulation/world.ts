import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import { Counters, type EventVerdict, type Source } from '../../src/authd/counters.ts'
import { FilePlaces } from '../../src/authd/file-places.ts'
import { GrantQueue } from '../../src/authd/grant-queue.ts'
import { Housekeeper } from '../../src/authd/housekeeper.ts'
import { LoginSocket } from '../../src/authd/login-socket.ts'
import { LoginSources } from '../../src/authd/login-sources.ts'
import { QUEUE_BOUNDS, type QueueBounds } from '../../src/authd/queue/queue-bounds.ts'
import type { Clock } from '../../src/base/clock.ts'
import type { Log } from '../../src/base/log.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import type { GrantPolicy } from '../../src/grants/grant-policy.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import type { BlockTarget } from '../../src/grants/grant-store.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { CheckQueue } from '../../src/popup/checkers/check-queue.ts'
import { Announcer } from '../../src/popup/monitor/announcer.ts'
import { AuthdConnection } from '../../src/popup/monitor/authd-connection.ts'
import { FailureDelays, LoginIntervals } from '../../src/popup/monitor/login-delays.ts'
import { Logins } from '../../src/popup/monitor/logins.ts'
import { DIALECTS } from '../../src/syslog/dialects.ts'
import { LoginRecognizer } from '../../src/syslog/login-recognizer.ts'
import { CustomerNetworks } from '../../src/wire/customer-networks.ts'
import {
  formatNetwork,
  type IpAddress,
  type Network,
  NetworkSet,
  networkContains,
  parseIpAddress,
  parseNetwork,
} from '../../src/wire/ip-address.ts'
import { loginKey } from '../../src/wire/login-event.ts'
import { formatPolicyRequest } from '../../src/wire/services/policy.ts'
import { formatRelayQuery } from '../../src/wire/services/relay-query.ts'
import { formatNetstring } from '../../src/wire/services/socketmap.ts'
import { parseFromLogin, type ToLoginMessage } from '../../src/wire/workers/login-process.ts'
import { type Decision, decide } from '../../src/wrap/decision.ts'
import { shareDecisions } from '../../src/wrap/gate/gate-setup.ts'
import { TcpRulesFile } from '../../src/wrap/gate/tcp-rules-file.ts'
import { MailCounts } from '../../src/wrap/mail-counts.ts'
import { CdbExport } from '../../src/wrap/services/cdb-export.ts'
import { policyService } from '../../src/wrap/services/policy-service.ts'
import { queryService } from '../../src/wrap/services/query-service.ts'
import { socketmapService } from '../../src/wrap/services/socketmap-service.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import {
  DATABASE_MUTANTS,
  GrantStatements,
  immediateDatabase,
  type Mutant,
  SimulatedDatabase,
  SimulatedServerPair,
  STANDBY_LAG_MS,
} from './model-database.ts'
import { ADDRESSES, DEVICES, type Deed, type Plan, PROXIES, type Proxied } from './plan.ts'
import {
  clientOf,
  ProxiedGate,
  type ProxiedLogin,
  ProxiedPopup,
  type ProxyMutant,
  type StartedSmtpd,
  UNLISTED,
} from './proxies.ts'
import { Random } from './random.ts'
import { BrokenPromise, type Rule as RuleName } from './rules.ts'
import { SimulatedSockets } from './simulated-sockets.ts'
import type { Stage } from './stage.ts'
import { VirtualTime } from './virtual-time.ts'

/** Milliseconds. */
const GRANT_WAIT = 1000
const COMMIT_WAIT = 800
const EXP_TIME_S = 1800
/** The slowest leg of a statement while the database is slow. */
const SLOW_MS = 4000
/** A login that waits longer than this counts from its proof, otherwise from its commit. */
const GRAIN_MS = 1000
/** Time limit of the cdb export's queries. */
const CDB_TIMEOUT_MS = 3000
/** In a cluster, the cdb has no grants after this time and an interval without an answer. */
const STANDBY_AGE_MS = 3000
/** Interval of the checks of the cdb itself. */
const CDB_LOOK_MS = 7000
/** The delays of the simulated parts that may follow grant_wait. */
const LATE_MS = 50
const START = Date.UTC(2026, 0, 5)
const LOGIN_SOCKET = '/run/auth-relay/authd.sock'

/** Limits of the queues in a narrow plan: of authd, and of popup's connection to it. */
const NARROW: QueueBounds = { pending: 3, highWater: 1, kept: 3 }
const NARROW_EVENTS = 3

/** Bugs that a test plants. */
export type WorldMutant =
  | Mutant
  | ProxyMutant
  | 'a proxy is grantable'
  | 'queued is called committed'
  | 'queued logins are dropped'
  | 'every login is queued'
  | 'a queue is smaller than its limit'
  | 'a full queue stays full'
  | 'a wrong password counts'
  | '+OK does not wait'
  | '+OK waits without end'
  | 'no address is ungrantable'
  | 'the cdb has no ends'
  | 'the cdb of a cluster needs no answer'
  | 'a stopped cdb keeps its grants'
  | 'a started cdb keeps its grants'
  | 'a service caches its answers'
  | 'a service finds no grant'

/** A bug, and the rule that must find it. The other rules then find nothing. */
export type PlantedBug = { readonly mutant: WorldMutant; readonly rule: RuleName }

/**
 * Runs a plan from its beginning to its end; rejects with BrokenPromise. Returns the number of
 * simulated days times devices.
 */
export async function simulate(plan: Plan, stage: Stage, bug?: PlantedBug): Promise<number> {
  const time = new VirtualTime()
  time.install()
  try {
    const world = new World(plan, time, stage, bug)
    for (const { gapMs, ...deed } of plan.steps) {
      await time.pass(gapMs)
      world.begin(deed)
      world.check()
    }
    await world.finish()
    return (time.now / 86_400_000) * DEVICES.length
  } finally {
    time.uninstall()
    stage.sockets = undefined
  }
}

/** A block or an allowance, as the administrator knows it. */
type Rule = {
  readonly target: BlockTarget
  /** Virtual times of the request and of the answer. */
  readonly asked: number
  answered: number
  /** By the clock of the database; null: without end. */
  until: number | null
  /** Virtual times: an end was requested (`ended`), and the request was answered (`closed`). */
  ended: number
  closed: number
}

/** A proof of login: at this time the address has shown that it has a valid password. */
type Proof = { readonly at: number; readonly byDatabase: number; readonly login: string }
type Promised = { readonly until: number; readonly at: number; readonly ip: IpAddress; readonly login: string }

class World {
  readonly #time: VirtualTime
  readonly #random: Random
  readonly #sockets: SimulatedSockets
  readonly #server: SimulatedServerPair
  readonly #mutants: ReadonlySet<WorldMutant>
  /** The only rule that counts, in a test of this rule. */
  readonly #onlyRule: RuleName | undefined
  readonly #isNarrow: boolean
  readonly #policy: GrantPolicy
  readonly #ownPolicy: GrantPolicy
  readonly #places: FilePlaces
  readonly #customers = new CustomerNetworks()
  #machineOffset = 0
  /** Largest difference of the clocks in this run. */
  #offsets = { least: 0, most: 0 }
  #authd: Authd
  #monitor: Monitor
  #popup: ProxiedPopup
  #gate: Gate
  readonly #directory: string
  /** Incremented by each kill of the cdb export. A killed one may write only to its former file. */
  #cdbLife = 0
  #cdbFile: TcpRulesFile
  /** The octets of the cdb, and the addresses that it opens or not. */
  #cdbRead = { octets: Buffer.alloc(0), isOpen: new Map<IpAddress, boolean>() }
  /** `since`: virtual time of the end of its first query. */
  #cdb:
    | {
        readonly cdb: CdbExport
        since: number
        /** Virtual time at which it is stopped. */
        readonly until: number
        readonly intervalMs: number
        isKilled: boolean
      }
    | undefined
  /** The begin of the last query of the export that was answered. */
  #cdbAsked = Number.NEGATIVE_INFINITY
  /** The time of that answer. */
  #cdbAnswered = Number.NEGATIVE_INFINITY
  /** Whether the export is that of a cluster; every second plan. */
  readonly #cdbIsProven: boolean
  readonly #administrator: ReturnType<typeof createGrantAdmin>
  /** For each row of grants, the last proof. */
  readonly #proofs = new Map<string, Proof>()
  /** For each row, the latest end that an answer `committed` has promised. */
  readonly #promised = new Map<string, Promised>()
  /** For each row, every login that it ever had. */
  readonly #logins = new Map<string, Set<string>>()
  readonly #blocks: Rule[] = []
  readonly #allowances: Rule[] = []
  /** Targets of the unblock commands that have no answer yet. */
  readonly #unblocksUnanswered: BlockTarget[] = []
  /** Virtual time until which a fault excuses a slow answer. */
  #disturbedUntil = 0
  /** Virtual time of the last stop of authd while the database was slow or down. */
  #stoppedAt = Number.NEGATIVE_INFINITY
  /** Virtual time of the last failover that lost commits. */
  #lostAt = Number.NEGATIVE_INFINITY
  /** Logins by id whose +OK was sent after the answer `queued`, if no process was killed since. */
  readonly #owed = new Map<
    string,
    { readonly row: string; readonly at: number; readonly ip: IpAddress; readonly login: string }
  >()
  /** Virtual time at which authd's queue last had more logins than its limit. */
  #fullAt = Number.NEGATIVE_INFINITY
  /** For each row, the virtual time of its last login that a full queue dropped. */
  readonly #dropped = new Map<string, number>()
  #violation: Error | undefined
  #attempts = 0
  #wasSlow = false

  constructor({ seed, isNarrow }: Plan, time: VirtualTime, stage: Stage, bug: PlantedBug | undefined) {
    this.#time = time
    this.#random = new Random(seed)
    this.#isNarrow = isNarrow
    this.#onlyRule = bug?.rule
    const mutants = bug === undefined ? [] : [bug.mutant]
    this.#cdbIsProven = seed % 2 === 0
    this.#mutants = new Set(mutants)
    this.#sockets = new SimulatedSockets(time, this.#random, stage.handle)
    stage.sockets = this.#sockets
    this.#places = new FilePlaces(`${stage.directory}/places.json`)
    this.#directory = stage.directory
    this.#cdbFile = new TcpRulesFile(this.#cdbPath)
    const inDatabase = mutants.filter(isDatabaseMutant)
    this.#server = new SimulatedServerPair(time, this.#random, new GrantStatements(inDatabase))
    this.#server.clockOffset = START
    this.#ownPolicy = policyOf()
    this.#policy = this.#mutants.has('no address is ungrantable')
      ? grantPolicy({ grantLoopback: true })
      : this.#mutants.has('a proxy is grantable')
        ? policyOf(['10.0.0.1/32'])
        : this.#ownPolicy
    this.#server.onCommit = () => {
      const broken = this.#brokenRow()
      if (broken !== undefined) this.#fail(...broken)
    }
    this.#authd = this.#startAuthd()
    this.#monitor = this.#startMonitor()
    this.#popup = this.#startPopup()
    this.#gate = this.#startGate()
    this.#administrator = createGrantAdmin(new SimulatedDatabase(this.#server), this.#policy)
  }

  /** Starts the event of a step, which continues while later steps begin. */
  begin(deed: Deed): void {
    switch (deed.kind) {
      case 'login':
        this.#logIn(deed.device, ipOf(deed.ip))
        return
      case 'guess':
        this.#guess(deed.device, ipOf(deed.ip))
        return
      case 'line':
        this.#acceptLine(deed.device, ipOf(deed.ip), deed.lateSeconds)
        return
      case 'ask':
        this.#watch(this.#ask(ipOf(deed.ip)))
        this.#checkCdb([deed.ip])
        return
      case 'proxied-login':
        this.#logInBehindProxy(deed.device, deed.proxied)
        return
      case 'proxied-mail':
        this.#watch(this.#sendBehindProxy(deed.proxied))
        return
      case 'compare':
        this.#watch(this.#compare())
        this.#checkCdb(ADDRESSES)
        return
      case 'export':
        this.#watch(this.#export(deed.seconds * 1000, deed.intervalSeconds * 1000))
        return
      case 'allow':
        this.#watch(this.#allow(networkOf(deed.network), deed.seconds))
        return
      case 'disallow':
        this.#end(this.#allowances, { kind: 'network', network: networkOf(deed.network) }, () =>
          this.#administrator.disallow(networkOf(deed.network)),
        )
        return
      case 'block':
        this.#watch(this.#block({ kind: 'network', network: networkOf(deed.network) }, deed.seconds))
        return
      case 'block-login':
        this.#watch(this.#block({ kind: 'login', login: deed.login }, deed.seconds))
        return
      case 'unblock':
        this.#unblock({ kind: 'network', network: networkOf(deed.network) })
        return
      case 'unblock-login':
        this.#unblock({ kind: 'login', login: deed.login })
        return
      case 'sweep':
        this.#authd.sweep()
        return
      default:
        this.#fault(deed)
    }
  }

  /** Throws the violation that was found since the last call. */
  check(): void {
    this.#collect()
    if (this.#violation !== undefined) throw this.#violation
  }

  /** Ends all faults; afterwards every promise must be kept. */
  async finish(): Promise<void> {
    this.#recover()
    await this.#time.pass(120_000)
    this.check()
    await this.#compare()
    this.check()
    await this.#endExport()
    this.#gate.stop()
    await this.#authd.stop()
    await this.#monitor.stop()
  }

  /**
   * One minute after the last fault, a login with the answer `queued` must be stored, and no line
   * may wait.
   */
  #collect(): void {
    const now = this.#time.now
    if (now < this.#disturbedUntil + 60_000) return
    if (now > (this.#authd.waitingSince ?? now) + 60_000)
      this.#fail('a full queue empties', 'a line waits for room in the queue of authd')
    for (const [id, { row, at, ip, login }] of this.#owed) {
      if (now < at + 60_000) continue
      this.#owed.delete(id)
      // A grant that is due later may have ended and been swept.
      const isOver = now > at + EXP_TIME_S * 1000 - 60_000 || this.#clocksHaveStepped
      if ((this.#dropped.get(row) ?? Number.NEGATIVE_INFINITY) >= at) continue
      if (isOver || this.#mayBeBlocked(ip, login, at) || this.#server.primary.grants.has(row)) continue
      this.#fail('a queued login is stored', `+OK went out for ${id}, queued, and its row ${row} never came`)
    }
  }

  // ---- devices

  #logIn(device: string, ip: IpAddress): void {
    this.#attempts += 1
    const n = this.#attempts
    const id = `51.${n}`
    let started = this.#time.now
    const proved = (): void => {
      this.#prove(ip, device)
      started = this.#time.now
    }
    this.#monitor.logIn({ n, id, login: device, ip, isRight: true, proved }, grant =>
      this.#checkGrant({ id, ip, login: device, started }, grant, DIRECT),
    )
  }

  /** `rules`: the names of the rules about the answers `committed` and `refused`. */
  #checkGrant(
    { id, ip, login, started }: { id: string; ip: IpAddress; login: string; started: number },
    grant: GrantResult | undefined,
    rules: { readonly committed: RuleName; readonly refused: RuleName },
  ): void {
    const row = this.#policy.rowOf(ip)
    const took = this.#time.now - started
    if (took > GRANT_WAIT + LATE_MS)
      this.#fail('+OK waits at most grant_wait', `+OK for ${id} went out ${took} ms after the password`)
    if (grant === undefined) {
      this.#fail('+OK waits for its answer', `+OK for ${id} went out before its event was answered`)
      return
    }
    if (grant.verdict === 'committed') {
      if (this.#lostAt >= started || this.#mayBeBlocked(ip, login, started)) return
      this.#expectRelay(ip, grant.until * 1000, id, rules.committed)
      this.#promised.set(row, { until: grant.until * 1000, at: this.#time.now, ip, login })
      return
    }
    if (grant.verdict === 'queued') {
      if (this.#disturbedUntil < started && took < COMMIT_WAIT && this.#fullAt < started)
        this.#fail('queued needs a fault', `+OK for ${id} went out queued after ${took} ms without a fault`)
      if (this.#ownPolicy.neverList.loginRefusal(ip) === undefined && started > this.#stoppedAt)
        this.#owed.set(id, { row, at: started, ip, login })
      return
    }
    const isExpected =
      this.#ownPolicy.neverList.loginRefusal(ip) !== undefined || this.#mayBeBlocked(ip, login, started)
    if (!isExpected) this.#fail(rules.refused, `${ip} was refused: ${grant.reason}`)
  }

  /** A login by way of a proxy, which announces the client in a header. */
  #logInBehindProxy(device: string, proxied: Proxied): void {
    this.#attempts += 1
    const n = this.#attempts
    this.#popup.connect(device, `secret-${n}`, proxied, login => this.#logInNamed(n, device, proxied, login))
  }

  /** popup's login process has accepted a client behind a proxy, and asks about its login. */
  #logInNamed(n: number, device: string, proxied: Proxied, { client, accept }: ProxiedLogin): void {
    const id = `51.${n}`
    const { header } = proxied
    if (header === 'unlisted')
      this.#fail('popup takes names from trusted proxies only', `${UNLISTED} named the client ${client}`)
    else if (clientOf(proxied) === undefined)
      this.#fail('popup serves no client without a name', `${client} may log in after a header ${header}`)
    // The password is right in every case, so that only the address of the client can be wrong.
    const ip = clientOf(proxied) ?? client
    let started = this.#time.now
    const proved = (): void => {
      this.#prove(ip, device)
      started = this.#time.now
    }
    this.#monitor.logIn({ n, id, login: device, ip: client, isRight: true, proved }, grant => {
      accept()
      this.#checkGrant({ id, ip, login: device, started }, grant, NAMED_BY_PROXY)
    })
  }

  /** A login with a wrong password. */
  #guess(device: string, ip: IpAddress): void {
    this.#attempts += 1
    const n = this.#attempts
    const id = `51.${n}`
    this.#monitor.logIn({ n, id, login: device, ip, isRight: false, proved: () => {} }, () =>
      this.#fail('a wrong password opens nothing', `${id} had a wrong password and was accepted`),
    )
  }

  #acceptLine(device: string, ip: IpAddress, lateSeconds: number): void {
    const written = this.#machineClock() - lateSeconds * 1000
    // The stamp has whole seconds.
    if (lateSeconds <= 0) this.#prove(ip, device)
    else this.#proveEarlier(ip, device, lateSeconds * 1000)
    const stamp = new Date(written).toISOString()
    this.#authd.acceptLine(`${stamp} mx ipop3d[1]: Login user=${device} host=[${ip}] nmsgs=0/0`, () => {
      // A stamp ahead counts as the time at which authd reads the line.
      if (lateSeconds < 0) this.#prove(ip, device)
    })
  }

  /** Queries the gate itself or one of its services. */
  async #ask(ip: IpAddress): Promise<void> {
    const asked = this.#time.now
    const clockThen = this.#server.clock
    const way = WAYS[this.#random.below(WAYS.length)] ?? 'gate'
    const relay = await this.#gate.ask(ip, way)
    if (relay !== undefined) this.#checkAnswer(ip, relay, { asked, clockThen, way })
  }

  #checkAnswer(
    ip: IpAddress,
    relay: boolean,
    { asked, clockThen, way }: { asked: number; clockThen: number; way: string },
  ): void {
    if (!relay) {
      if (this.#isOwed(ip, asked))
        this.#fail(
          'every service sees a grant',
          `${ip} was promised the relay, and the answer of the ${way} is negative`,
        )
      return
    }
    if (this.#ownPolicy.neverList.refusal(ip) !== undefined) {
      this.#fail(
        'no relay for an ungrantable address',
        `the relay opened for ${ip}, which is ungrantable, by the ${way}`,
      )
      return
    }
    const block = this.#blocks.find(
      rule => rule.answered <= asked && this.#isInForce(rule, asked) && this.#covers(rule, ip),
    )
    if (block !== undefined && block.answered > this.#lostAt)
      this.#fail('a block holds later', `the relay opened for ${ip}, which was blocked before, by the ${way}`)
    else if (!this.#mayRelay(ip, asked, clockThen))
      this.#fail('no relay without a login', `the relay opened for ${ip} without a login that counts, by the ${way}`)
  }

  /** An SMTP connection to the resident gate by way of a proxy. */
  async #sendBehindProxy(proxied: Proxied): Promise<void> {
    const asked = this.#time.now
    const clockThen = this.#server.clock
    const smtpd = await this.#gate.connectProxied(proxied)
    if (smtpd === undefined) return
    const { header, proxy, ip } = proxied
    switch (header) {
      case 'unlisted':
        if (smtpd.relay || smtpd.client !== UNLISTED)
          this.#fail(
            'the gate takes names from trusted proxies only',
            `${UNLISTED} named the client ${smtpd.client}, relay ${smtpd.relay}`,
          )
        return
      case 'itself':
        if (smtpd.relay) this.#fail('no relay for a proxy', `the relay opened for ${proxy}, which named itself`)
        return
      case 'LOCAL':
      case 'UNKNOWN':
      case 'UNSPEC':
        if (smtpd.relay) this.#fail('no relay for a client without a name', `the relay opened after ${header}`)
        return
      default:
        if (smtpd.client === ip) this.#checkAnswer(ipOf(ip), smtpd.relay, { asked, clockThen, way: 'resident gate' })
        else this.#fail('the gate decides about the named client', `the smtpd of ${ip} got ${smtpd.client}`)
    }
  }

  /**
   * A login from there was answered `committed` before, its grant is still in force, and no fault
   * excuses a negative answer.
   */
  #isOwed(ip: IpAddress, since: number): boolean {
    const promised = this.#promised.get(this.#policy.rowOf(ip))
    if (promised === undefined || promised.at > since || this.#disturbedUntil >= since) return false
    if (this.#lostAt >= promised.at || this.#clocksHaveStepped) return false
    if (promised.until <= this.#server.clock + 1000) return false
    return !this.#mayBeBlocked(ip, promised.login, promised.at)
  }

  // ---- the cdb

  async #export(milliseconds: number, intervalMs: number): Promise<void> {
    if (this.#cdb !== undefined) return
    const reader = createGrantReader(new SimulatedDatabase(this.#server), this.#policy)
    const hasEnds = !this.#mutants.has('the cdb has no ends')
    const cdb = new CdbExport({
      path: this.#cdbPath,
      rulesPath: '',
      relayclientValue: '',
      list: async signal => {
        const asked = this.#time.now
        const rows = await reader.current({ signal })
        if (running.isKilled) return new Promise(() => {})
        this.#cdbAsked = asked
        this.#cdbAnswered = this.#time.now
        return rows.map(({ network, until, login }) => ({
          network,
          until: until === null || !hasEnds ? undefined : Math.floor(until.getTime() / 1000),
          login: login ?? undefined,
        }))
      },
      onChange: () => {},
      refusal: ip => this.#policy.neverList.refusal(ip),
      timeoutMs: CDB_TIMEOUT_MS,
      intervalMs,
      unprovenMs: this.#unprovenMs(intervalMs),
      clock: this.#machineClock,
      monotonic: () => this.#time.now,
      log: SILENT,
    })
    const until = this.#time.now + milliseconds
    const running = { cdb, since: Number.POSITIVE_INFINITY, until, intervalMs, isKilled: false }
    this.#cdb = running
    const before = this.#cdbOctets()
    const started = cdb.start()
    if (this.#mutants.has('a started cdb keeps its grants')) writeFileSync(this.#cdbPath, before)
    this.#expectEmptyCdb('a cdb starts empty')
    await started
    // The export may have been stopped or killed meanwhile.
    if (this.#cdb !== running) return
    running.since = this.#time.now
    const look = (): void => {
      if (this.#cdb !== running) return
      this.#checkCdb(ADDRESSES)
      if (this.#time.now < until) this.#time.after(Math.max(CDB_LOOK_MS, intervalMs / 8), look)
      else this.#watch(this.#endExport())
    }
    this.#time.after(CDB_LOOK_MS, look)
  }

  #unprovenMs(intervalMs: number): number | undefined {
    if (!this.#cdbIsProven || this.#mutants.has('the cdb of a cluster needs no answer')) return undefined
    return STANDBY_AGE_MS + intervalMs
  }

  async #endExport(): Promise<void> {
    const running = this.#cdb
    if (running === undefined) return
    this.#cdb = undefined
    const before = this.#cdbOctets()
    await running.cdb.stop()
    if (this.#mutants.has('a stopped cdb keeps its grants')) writeFileSync(this.#cdbPath, before)
    if (this.#cdb === undefined) this.#expectEmptyCdb('a stopped cdb is empty')
  }

  /**
   * Kills the export, and starts it again for the rest of its time. Its grants stay in the file
   * until the start.
   */
  #killExport(): void {
    const running = this.#cdb
    if (running === undefined) return
    this.#cdb = undefined
    running.isKilled = true
    const former = this.#cdbPath
    this.#cdbLife += 1
    copyFileSync(former, this.#cdbPath)
    this.#cdbFile = new TcpRulesFile(this.#cdbPath)
    this.#watch(this.#export(Math.max(0, running.until - this.#time.now), running.intervalMs))
  }

  #expectEmptyCdb(rule: RuleName): void {
    const isOpen = this.#readCdb()
    for (const text of ADDRESSES) if (isOpen(ipOf(text))) this.#fail(rule, `${text} is in the cdb`)
  }

  /** None before the first export. */
  #cdbOctets(): Buffer {
    try {
      return readFileSync(this.#cdbPath)
    } catch {
      return Buffer.alloc(0)
    }
  }

  /**
   * Every address in the cdb may relay, or could before the export's last query. After a fault that
   * may have been a query without an answer, and the last one with an answer counts. In a cluster
   * it counts for STANDBY_AGE_MS and an interval. Every address with a promise is in the cdb.
   */
  #checkCdb(texts: readonly string[]): void {
    if (this.#cdb === undefined || this.#time.now < this.#cdb.since) return
    const lag = this.#cdb.intervalMs + CDB_TIMEOUT_MS + 100
    const looked = this.#time.now - lag
    const isOpen = this.#readCdb()
    for (const text of texts) {
      const ip = ipOf(text)
      if (!isOpen(ip)) {
        const isExcused = this.#blocks.length > 0 || this.#cdb.since > looked
        if (!isExcused && this.#isOwed(ip, looked))
          this.#fail('the cdb has every grant', `${ip} was promised the relay and is not in the cdb`)
        continue
      }
      if (this.#ownPolicy.neverList.refusal(ip) !== undefined)
        this.#fail('no cdb entry for an ungrantable address', `${ip} is ungrantable and in the cdb`)
      // An end counts at once; the export sees later changes with its next query.
      const known = this.#time.now < this.#disturbedUntil ? Math.min(looked, this.#cdbAsked) : looked
      if (!this.#mayRelay(ip, known, this.#server.clock))
        this.#fail('no cdb entry without a login', `${ip} is in the cdb without a login that counts`)
      const block = this.#blocks.find(
        rule => rule.answered <= looked && this.#isInForce(rule, looked) && this.#covers(rule, ip),
      )
      if (block !== undefined && block.answered > this.#lostAt && this.#disturbedUntil < looked)
        this.#fail('a block reaches the cdb', `${ip} was blocked before the last look and is in the cdb`)
      const proven = this.#cdbAnswered + STANDBY_AGE_MS + this.#cdb.intervalMs + 100
      if (this.#cdbIsProven && this.#time.now > proven)
        this.#fail('the cdb of a cluster needs answers', `${ip} is in the cdb, and the last answer is too old`)
    }
  }

  get #cdbPath(): string {
    return `${this.#directory}/smtp-${this.#cdbLife}.cdb`
  }

  /**
   * The answers of the current cdb. The same octets give the same answers, so that an address is
   * looked up once in each version of the file.
   */
  #readCdb(): (ip: IpAddress) => boolean {
    const octets = readFileSync(this.#cdbPath)
    if (!octets.equals(this.#cdbRead.octets)) this.#cdbRead = { octets, isOpen: new Map() }
    const { isOpen } = this.#cdbRead
    return ip => {
      const known = isOpen.get(ip)
      if (known !== undefined) return known
      const { allow, environment } = this.#cdbFile.find({ ip })
      const found = allow && environment['RELAYCLIENT'] !== undefined
      isOpen.set(ip, found)
      return found
    }
  }

  /**
   * True if an allowance of the address, or a login from it, may count at a time between `asked`
   * and now.
   */
  #mayRelay(ip: IpAddress, asked: number, clockThen: number): boolean {
    const isAllowed = this.#allowances.some(
      rule =>
        this.#covers(rule, ip) &&
        rule.closed > asked &&
        (rule.until === null || rule.until + this.#slack() > clockThen),
    )
    const proof = this.#proofs.get(this.#policy.rowOf(ip))
    return isAllowed || (proof !== undefined && proof.byDatabase + EXP_TIME_S * 1000 + this.#slack() > clockThen)
  }

  // ---- the administrator

  async #allow(network: Network, seconds: number | null): Promise<void> {
    const rule = this.#rule({ kind: 'network', network }, seconds)
    this.#allowances.push(rule)
    try {
      await this.#administrator.allow(network, { forSeconds: seconds, reason: 'simulated', owner: 'root' })
      rule.answered = this.#time.now
    } catch {
      // The block may apply nevertheless, and a later command does not necessarily follow.
    }
  }

  async #block(target: BlockTarget, seconds: number | null): Promise<void> {
    const rule = this.#rule(target, seconds)
    // A new block replaces the previous one. If the new block is shorter, the previous one does not
    // apply any longer.
    for (const older of this.#blocks) {
      if (sameTarget(older.target, target)) older.ended = Math.min(older.ended, this.#time.now)
    }
    // An unblock without an answer may take effect after the block, and then ends it.
    if (this.#unblocksUnanswered.some(older => sameTarget(older, target))) rule.ended = this.#time.now
    this.#blocks.push(rule)
    for (const [row, { ip, login }] of this.#promised) if (this.#isAbout(rule, ip, login)) this.#promised.delete(row)
    try {
      const { until } = await this.#administrator.block(target, {
        forSeconds: seconds,
        reason: 'simulated',
        owner: 'root',
      })
      rule.answered = this.#time.now
      rule.until = until === null ? null : until.getTime()
      const open = this.#sureRelay(target.kind === 'network' ? target.network.base : undefined)
      if (open && this.#isInForce(rule, this.#time.now))
        this.#fail('a block holds at its answer', 'an address may relay at the moment its block was answered')
    } catch {
      // The command fails with a message, and the administrator repeats it. Until then there is no
      // promise.
    }
  }

  #unblock(target: BlockTarget): void {
    this.#unblocksUnanswered.push(target)
    this.#end(this.#blocks, target, async () => {
      try {
        await this.#administrator.unblock(target)
      } finally {
        this.#unblocksUnanswered.splice(this.#unblocksUnanswered.indexOf(target), 1)
      }
    })
  }

  /**
   * Ends blocks or allowances. They count until the end is answered; if the command fails, they may
   * still count.
   */
  #end(rules: readonly Rule[], target: BlockTarget, action: () => Promise<unknown>): void {
    const asked = this.#time.now
    const meant = rules.filter(rule => sameTarget(rule.target, target))
    for (const rule of meant) rule.ended = Math.min(rule.ended, this.#time.now)
    action().then(
      () => {
        for (const rule of meant) {
          // A command that ran when the end was requested may have taken effect after the end.
          if (rule.answered <= asked) rule.closed = Math.min(rule.closed, this.#time.now)
        }
      },
      () => {},
    )
  }

  // ---- faults

  #fault(deed: Exclude<Deed, { readonly kind: 'login' }>): void {
    const { conditions } = this.#server
    const disturb = (milliseconds: number): void => {
      this.#disturbedUntil = Math.max(this.#disturbedUntil, this.#time.now + milliseconds)
    }
    // A process that recovers waits between two attempts: authd up to 30 s, popup 2 s.
    disturb(60_000)
    switch (deed.kind) {
      case 'cut':
        this.#sockets.cutAll()
        return
      case 'kill-authd':
        this.#owed.clear()
        this.#authd.kill()
        this.#sockets.cutAll()
        this.#authd = this.#startAuthd()
        return
      case 'restart-authd': {
        // A login that authd has taken and cannot store within the time for stopping is lost, and a
        // log line names it. authd takes no login after that moment.
        if (conditions.down || conditions.delayMs > 2) {
          this.#owed.clear()
          this.#stoppedAt = this.#time.now
        }
        void this.#authd.stop()
        this.#authd = this.#startAuthd()
        return
      }
      case 'restart-monitor':
        this.#owed.clear()
        void this.#monitor.stop()
        this.#monitor = this.#startMonitor()
        this.#popup = this.#startPopup()
        return
      case 'kill-monitor':
        this.#owed.clear()
        this.#sockets.cutAll()
        void this.#monitor.kill()
        this.#monitor = this.#startMonitor()
        this.#popup = this.#startPopup()
        return
      case 'kill-gate':
        this.#gate.kill()
        this.#sockets.cutAll()
        this.#gate = this.#startGate()
        this.#killExport()
        return
      case 'kill-export':
        this.#killExport()
        return
      case 'reload-authd':
        this.#authd.reload(this.#policy)
        return
      case 'restart-gate':
        this.#gate.stop()
        this.#gate = this.#startGate()
        this.#watch(this.#endExport())
        return
      case 'reload':
        this.#monitor.reload(this.#policy)
        this.#popup.reload()
        this.#gate.reload()
        return
      case 'database-down':
        conditions.down = true
        disturb(deed.seconds * 1000 + 60_000)
        this.#time.after(deed.seconds * 1000, () => {
          conditions.down = false
          this.#authd.storeIsBack()
        })
        return
      case 'database-slow':
        conditions.delayMs = SLOW_MS
        this.#wasSlow = true
        disturb(deed.seconds * 1000 + 60_000)
        this.#time.after(deed.seconds * 1000, () => {
          conditions.delayMs = 2
        })
        return
      case 'outcomes-unknown':
        conditions.unknownOutcomes = deed.statements
        this.#time.after(5000, () => {
          conditions.unknownOutcomes = 0
        })
        return
      case 'fail-over':
        if (this.#server.standbyIsBehind) {
          this.#lostAt = this.#time.now
          this.#promised.clear()
          this.#owed.clear()
          // The new primary may lack the end of a block or of an allowance, which then apply again.
          for (const rule of [...this.#allowances, ...this.#blocks]) {
            if (rule.closed > this.#time.now - STANDBY_LAG_MS) rule.closed = Number.POSITIVE_INFINITY
          }
        }
        this.#server.failOver()
        return
      case 'asynchronous':
        conditions.asynchronous = true
        return
      case 'synchronous':
        conditions.asynchronous = false
        return
      case 'step-machine-clock':
        this.#machineOffset += deed.seconds * 1000
        this.#noteOffsets()
        return
      case 'step-database-clock':
        this.#server.clockOffset += deed.seconds * 1000
        this.#noteOffsets()
        return
      default:
        throw new Error(`no fault ${deed.kind}`)
    }
  }

  #recover(): void {
    const { conditions } = this.#server
    Object.assign(conditions, { down: false, delayMs: 2, asynchronous: false, unknownOutcomes: 0 })
    this.#authd.storeIsBack()
  }

  // ---- what must be true

  /** After every commit: no row is in force longer than its last proof allows. */
  #brokenRow(): readonly [RuleName, string] | undefined {
    const now = this.#time.now
    for (const proxy of PROXIES) {
      if (this.#server.primary.grants.has(this.#policy.rowOf(ipOf(proxy))))
        return ['no grant for a proxy', `a grant for ${proxy}`]
    }
    for (const [row, { until }] of this.#server.primary.grants) {
      const proof = this.#proofs.get(row)
      if (proof === undefined)
        return ['no grant for an address without a login', `a grant for ${row}, which had no login`]
      const end = proof.byDatabase + EXP_TIME_S * 1000 + this.#slack()
      if (until > end)
        return [
          'no grant outlives its login',
          `the grant of ${row} ends ${Math.ceil((until - end) / 1000)} s after its time`,
        ]
    }
    for (const [row, promised] of this.#promised) {
      if (promised.until <= this.#server.clock || this.#clocksHaveStepped) {
        this.#promised.delete(row)
        continue
      }
      const kept = this.#server.primary.grants.get(row)
      // The promise has whole seconds.
      if (kept === undefined || kept.until < promised.until) {
        return [
          'a committed grant stays',
          `the grant of ${row}, committed ${now - promised.at} ms ago, is not there any more`,
        ]
      }
    }
    return undefined
  }

  /** At the time of +OK the address may relay, unless a block applies. */
  #expectRelay(ip: IpAddress, until: number, id: string, rule: RuleName): void {
    if (until <= this.#server.clock) return
    if (this.#clocksHaveStepped) return
    if (!this.#sureRelay(ip)) this.#fail(rule, `${id}: +OK went out as committed, and ${ip} may not relay`)
  }

  /** All services and tables give the same answer for the same address at the same time. */
  async #compare(): Promise<void> {
    const reader = createGrantReader(
      immediateDatabase(
        this.#server.statements,
        () => this.#server.primary,
        () => this.#server.clock,
      ),
      this.#policy,
    )
    const listed = await reader.current()
    for (const text of ADDRESSES) {
      const ip = ipOf(text)
      const found = await reader.lookup(ip)
      const isListed = listed.some(({ network }) => networkContains(network, ip))
      // The list leaves out a network with a blocked part.
      const isPartlyBlocked = this.#blocks.some(({ target }) => target.kind === 'network')
      if (found !== undefined && !isListed && !isPartlyBlocked)
        this.#fail('the list has every open address', `${ip} may relay and is not in the list`)
      if (found === undefined && isListed)
        this.#fail('the list has no other address', `${ip} may not relay and is in the list`)
    }
  }

  /** The current answer of the database, without any delay. */
  #sureRelay(ip: IpAddress | undefined): boolean {
    if (ip === undefined || this.#policy.neverList.refusal(ip) !== undefined) return false
    const values = [[ip], [this.#policy.rowOf(ip)], [null]]
    const statement = { name: 'lookup-grants', text: '', row: v.unknown() }
    return (
      this.#server.statements.begin(this.#server.primary, statement, values, this.#server.clock)(this.#server.primary)
        .length > 0
    )
  }

  /**
   * Milliseconds by which a grant may end later than its proof allows. The queue gives a login the
   * time of its commit if it waited for less than a second. A stamp in a line has whole seconds,
   * and a statement has a delay. Clocks may differ after a step.
   */
  #slack(): number {
    return 3 * GRAIN_MS + 100 + (this.#wasSlow ? SLOW_MS : 0) + this.#offsets.most - this.#offsets.least
  }

  /** The database treats a row from the future as invalid, and deletes it. */
  get #clocksHaveStepped(): boolean {
    return this.#offsets.most > this.#offsets.least
  }

  /** A block may have been in force at some time since. */
  #mayBeBlocked(ip: IpAddress, login: string, since: number): boolean {
    return this.#blocks.some(
      rule =>
        this.#isAbout(rule, ip, login) &&
        // A block that was ended applies again when the clock of the database is set back to a time
        // before the end.
        rule.closed >= since - (this.#offsets.most - this.#offsets.least) &&
        (rule.until === null || rule.until + this.#slack() + this.#time.now - since > this.#server.clock),
    )
  }

  #isAbout({ target }: Rule, ip: IpAddress, login: string): boolean {
    // A row stores only its last login, so a block of that login deletes the grant of the address's
    // other logins too.
    if (target.kind === 'login') {
      return [login, ...(this.#logins.get(this.#policy.rowOf(ip)) ?? [])].some(
        one => loginKey(one) === loginKey(target.login),
      )
    }
    const embedded = this.#policy.embeddedIpv4(ip)
    return [ip, networkOf(this.#policy.rowOf(ip)).base, ...(embedded === undefined ? [] : [embedded])].some(one =>
      networkContains(target.network, one),
    )
  }

  #covers({ target }: Rule, ip: IpAddress): boolean {
    return target.kind === 'network' && networkContains(target.network, ip)
  }

  /** The block is in force from `asked` until now, for every state of the clocks. */
  #isInForce({ until, ended }: Rule, asked: number): boolean {
    if (ended <= this.#time.now || ended <= asked) return false
    return until === null || until - this.#slack() > this.#server.clock
  }

  #rule(target: BlockTarget, seconds: number | null): Rule {
    return {
      target,
      asked: this.#time.now,
      answered: Number.POSITIVE_INFINITY,
      until: seconds === null ? null : this.#server.clock + seconds * 1000,
      ended: Number.POSITIVE_INFINITY,
      closed: Number.POSITIVE_INFINITY,
    }
  }

  #prove(ip: IpAddress, login: string): void {
    this.#note(ip, login)
    this.#proofs.set(this.#policy.rowOf(ip), { at: this.#time.now, byDatabase: this.#server.clock, login })
  }

  #note(ip: IpAddress, login: string): void {
    const row = this.#policy.rowOf(ip)
    this.#logins.set(row, (this.#logins.get(row) ?? new Set()).add(login))
    // A block in force may delete the grant of this login, and with it the promises to other logins
    // of the row.
    const isBlocked = this.#blocks.some(
      ({ target }) => target.kind === 'login' && loginKey(target.login) === loginKey(login),
    )
    if (isBlocked) this.#promised.delete(row)
  }

  /** A late line proves a login at its earlier time. */
  #proveEarlier(ip: IpAddress, login: string, late: number): void {
    this.#note(ip, login)
    const row = this.#policy.rowOf(ip)
    const at = this.#server.clock - late
    const known = this.#proofs.get(row)
    if (known === undefined || known.byDatabase < at)
      this.#proofs.set(row, { at: this.#time.now - late, byDatabase: at, login })
  }

  #noteOffsets(): void {
    const [machine, database] = [this.#machineOffset, this.#server.clockOffset - START]
    this.#offsets = {
      least: Math.min(this.#offsets.least, machine, database),
      most: Math.max(this.#offsets.most, machine, database),
    }
  }

  #machineClock = (): number => START + this.#time.now + this.#machineOffset

  #startAuthd(): Authd {
    return new Authd({
      server: this.#server,
      sockets: this.#sockets,
      time: this.#time,
      policy: this.#policy,
      clock: this.#machineClock,
      mutants: this.#mutants,
      places: this.#places,
      bounds: this.#isNarrow ? NARROW : QUEUE_BOUNDS,
      onFull: () => {
        this.#fullAt = this.#time.now
      },
      onDropped: (ip, isFull) => {
        this.#dropped.set(this.#policy.rowOf(ip), this.#time.now)
        if (!isFull) this.#fail('only a full queue drops logins', `authd dropped a login of ${ip}, and had room`)
      },
    })
  }

  #startGate(): Gate {
    return new Gate(this.#server, this.#sockets, this.#policy, this.#customers, this.#mutants, () => this.#time.now)
  }

  #startPopup(): ProxiedPopup {
    return new ProxiedPopup({
      time: this.#time,
      random: this.#random,
      customers: this.#customers,
      mutants: this.#mutants,
      log: SILENT,
    })
  }

  #startMonitor(): Monitor {
    return new Monitor({
      policy: this.#policy,
      customers: this.#customers,
      clock: this.#machineClock,
      time: this.#time,
      random: this.#random,
      mutants: this.#mutants,
      maxKept: this.#isNarrow ? NARROW_EVENTS : undefined,
      onLost: (ip, isFull) => {
        this.#dropped.set(this.#policy.rowOf(ip), this.#time.now)
        if (!isFull) this.#fail('only a full connection drops events', `popup dropped an event of ${ip}, and had room`)
      },
    })
  }

  #fail(rule: RuleName, what: string): void {
    if (this.#onlyRule !== undefined && rule !== this.#onlyRule) return
    this.#violation ??= new BrokenPromise(rule, `at ${(this.#time.now / 1000).toFixed(3)} s: ${what}`)
  }

  #watch(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.#violation ??= error instanceof Error ? error : new Error(String(error))
    })
  }
}

/** The rules about the answer to a login, from the client's own connection and behind a proxy. */
const DIRECT = { committed: 'committed opens the relay', refused: 'refused needs a block' } as const
const NAMED_BY_PROXY = { committed: 'a named client gets its grant', refused: 'a named client gets its grant' } as const

type AuthdParts = {
  readonly server: SimulatedServerPair
  readonly sockets: SimulatedSockets
  readonly time: VirtualTime
  readonly policy: GrantPolicy
  readonly clock: Clock
  readonly mutants: ReadonlySet<WorldMutant>
  readonly places: FilePlaces
  readonly bounds: QueueBounds
  /** The queue has more logins than its limit. */
  readonly onFull: () => void
  /** A login was dropped. `isFull`: the queue had no room for it. */
  readonly onDropped: (ip: IpAddress, isFull: boolean) => void
}

/** authd's parts on one socket and one database connection. */
class Authd {
  readonly #database: SimulatedDatabase
  readonly #queue: GrantQueue
  readonly #room: () => Promise<void>
  readonly #sources: LoginSources
  readonly #socket: LoginSocket
  readonly #counters: WatchedCounters
  readonly #places: FilePlaces
  #writer: ReturnType<typeof createGrantWriter>
  readonly #clock: Clock
  #isKilled = false
  /** Virtual times at which lines began to wait until the queue has room. */
  readonly #waiting = new Set<{ readonly since: number }>()
  readonly #time: VirtualTime

  constructor({ server, sockets, time, policy, clock, mutants, places, bounds, onFull, onDropped }: AuthdParts) {
    this.#places = places
    this.#clock = clock
    this.#time = time
    this.#counters = new WatchedCounters()
    this.#database = new SimulatedDatabase(server)
    this.#writer = createGrantWriter(this.#database, policy, { clock })
    this.#queue = new GrantQueue({
      store: { record: (logins, query) => this.#writer.record(logins, query) },
      log: SILENT,
      counters: this.#counters,
      clock,
      monotonic: () => time.now,
      commitWait: COMMIT_WAIT,
      bounds: mutants.has('a queue is smaller than its limit') ? { ...bounds, kept: 1 } : bounds,
    })
    this.#room = mutants.has('a full queue stays full') ? () => new Promise(() => {}) : () => this.#queue.room()
    const queue = mutants.has('queued is called committed')
      ? new BoastingQueue(this.#queue, clock)
      : mutants.has('queued logins are dropped')
        ? new ForgetfulQueue(this.#queue, server)
        : mutants.has('every login is queued')
          ? new TimidQueue(this.#queue)
          : this.#queue
    this.#sources = new LoginSources({
      recognizers: recognizers(),
      queue: {
        submit: login => {
          const { settled } = login
          queue.submit({
            ...login,
            settled: () => {
              settled?.()
              if (this.#counters.last === 'dropped' && !this.#isKilled)
                onDropped(login.event.ip, this.#queue.length >= bounds.kept)
            },
          })
          if (this.#queue.length > bounds.pending) onFull()
        },
      },
      counters: this.#counters,
      clock,
      log: SILENT,
    })
    this.#socket = new LoginSocket({
      path: LOGIN_SOCKET,
      uids: new Set(),
      sources: this.#sources,
      counters: this.#counters,
      log: SILENT,
    })
    sockets.publishNewest(LOGIN_SOCKET)
  }

  /**
   * As the listener for syslogd, which stops reading while the queue has no room. `read`: called
   * when a line that waited is read.
   */
  acceptLine(line: string, read: () => void): void {
    if (this.#queue.hasRoom) {
      this.#sources.acceptLine('tcp', line)
      return
    }
    const waiting = { since: this.#time.now }
    this.#waiting.add(waiting)
    void this.#room().then(() => {
      this.#waiting.delete(waiting)
      if (this.#isKilled) return
      read()
      this.#sources.acceptLine('tcp', line)
    })
  }

  /** Virtual time since which the oldest waiting line waits; undefined if none waits. */
  get waitingSince(): number | undefined {
    const [oldest] = this.#waiting
    return oldest?.since
  }

  /** As after SIGHUP. */
  reload(policy: GrantPolicy): void {
    this.#sources.reconfigure(recognizers())
    this.#writer = createGrantWriter(this.#database, policy, { clock: this.#clock })
  }

  /**
   * A housekeeper that runs once, because its timers would run all through the days of a
   * simulation.
   */
  sweep(): void {
    const housekeeper = new Housekeeper({
      store: this.#writer,
      places: this.#places,
      lastLines: { save: () => {} },
      counters: this.#counters,
      log: SILENT,
      sweepEvery: 3_600_000,
      keepDays: 30,
    })
    housekeeper.close()
  }

  storeIsBack(): void {
    this.#queue.storeIsBack()
  }

  kill(): void {
    if (this.#isKilled) return
    this.#isKilled = true
    this.#database.kill()
    this.#socket.close()
    this.#queue.close()
  }

  /** As after SIGTERM. */
  async stop(): Promise<void> {
    this.#socket.drain()
    await this.#queue.drain(5000, 30_000)
    this.#socket.close()
    this.#queue.close()
  }
}

/** Remembers the result that was counted last, which is that of the login that settles next. */
class WatchedCounters extends Counters {
  last: EventVerdict | undefined

  override countEvent(source: Source, verdict: EventVerdict): void {
    super.countEvent(source, verdict)
    this.last = verdict
  }
}

function recognizers(): ConstructorParameters<typeof LoginSources>[0]['recognizers'] {
  const recognizer = new LoginRecognizer({ dialects: DIALECTS, maxAge: EXP_TIME_S * 1000 })
  return {
    syslog: recognizer,
    files: recognizer,
    otherSenders: recognizer,
    senders: { uids: new Set(), units: new Set() },
  }
}

/** Plants a bug: every login is answered before its commit. */
class TimidQueue {
  readonly #queue: GrantQueue

  constructor(queue: GrantQueue) {
    this.#queue = queue
  }

  submit({ answer, ...login }: Parameters<GrantQueue['submit']>[0]): void {
    answer?.({ verdict: 'queued', id: login.event.id })
    this.#queue.submit(login)
  }
}

/** Plants a bug: every queued login is answered `committed`. */
class BoastingQueue {
  readonly #queue: GrantQueue
  readonly #clock: () => number

  constructor(queue: GrantQueue, clock: () => number) {
    this.#queue = queue
    this.#clock = clock
  }

  submit(login: Parameters<GrantQueue['submit']>[0]): void {
    const until = Math.floor(this.#clock() / 1000) + EXP_TIME_S
    this.#queue.submit({
      ...login,
      answer: answer =>
        login.answer?.(answer.verdict === 'queued' ? { verdict: 'committed', id: answer.id, until } : answer),
    })
  }
}

/** Plants a bug: while the database is down or slow, logins are answered and dropped. */
class ForgetfulQueue {
  readonly #queue: GrantQueue
  readonly #server: SimulatedServerPair

  constructor(queue: GrantQueue, server: SimulatedServerPair) {
    this.#queue = queue
    this.#server = server
  }

  submit(login: Parameters<GrantQueue['submit']>[0]): void {
    const { down, delayMs } = this.#server.conditions
    if (down || delayMs > 2) login.answer?.({ verdict: 'queued', id: login.event.id })
    else this.#queue.submit(login)
  }
}

type GrantResult =
  | { readonly verdict: 'committed'; readonly until: number }
  | { readonly verdict: 'queued' }
  | { readonly verdict: 'refused'; readonly reason: string }

type MonitorParts = {
  readonly policy: GrantPolicy
  readonly customers: CustomerNetworks
  readonly clock: Clock
  readonly time: VirtualTime
  readonly random: Random
  readonly mutants: ReadonlySet<WorldMutant>
  /** Events that are kept while authd does not answer; undefined: popup's number. */
  readonly maxKept: number | undefined
  /** An event was dropped. `isFull`: there was no room for it. */
  readonly onLost: (ip: IpAddress, isFull: boolean) => void
}

/** A login at the server behind popup. `proved` is called if its password is right. */
type SimulatedLogin = {
  readonly n: number
  readonly id: string
  readonly login: string
  readonly ip: IpAddress
  readonly isRight: boolean
  readonly proved: () => void
}

/** popup's monitor, before a server that knows which passwords are right. */
class Monitor {
  readonly #logins: Logins
  readonly #announcer: Announcer
  readonly #connection: AuthdConnection
  readonly #time: VirtualTime
  readonly #random: Random
  readonly #believes: boolean
  readonly #onLost: (ip: IpAddress) => void
  /** Results of logins in the log, by session. */
  readonly #grants = new Map<string, GrantResult>()
  readonly #waiting = new Map<number, SimulatedLogin & { readonly done: (grant: GrantResult | undefined) => void }>()
  readonly #process = { index: 0, send: (message: ToLoginMessage): void => this.#receive(message) }

  constructor({ policy, customers, clock, time, random, mutants, maxKept, onLost }: MonitorParts) {
    this.#time = time
    this.#random = random
    this.#believes = mutants.has('a wrong password counts')
    const log: Log = {
      ...SILENT,
      info: (event, fields) => this.#read(event, fields ?? {}),
      error: (event, fields) => this.#readError(event, fields ?? {}),
      with: () => log,
    }
    const kept = mutants.has('a queue is smaller than its limit') ? 1 : maxKept
    this.#connection = new AuthdConnection(
      {
        path: LOGIN_SOCKET,
        grantWait: mutants.has('+OK waits without end') ? 10 * GRANT_WAIT : GRANT_WAIT,
        keepFor: EXP_TIME_S * 1000,
        ...(kept === undefined ? {} : { maxKept: kept }),
      },
      log,
      () => time.now,
    )
    const bound = maxKept ?? Number.POSITIVE_INFINITY
    this.#onLost = ip => onLost(ip, this.#connection.unanswered >= bound)
    const NewAnnouncer = mutants.has('+OK does not wait') ? HastyAnnouncer : Announcer
    this.#announcer = new NewAnnouncer(
      this.#connection,
      ip => policy.neverList.loginRefusal(ip),
      false,
      log,
      () => time.now,
    )
    const checks = new CheckQueue({ atOnce: 64, mostWaiting: 1000 })
    this.#logins = new Logins({
      authenticator: { kind: 'upstream', checks: () => checks },
      delays: new FailureDelays([2000], clock, customers),
      customers: () => customers,
      intervals: new LoginIntervals(0, clock),
      announcer: this.#announcer,
      checkTimeout: () => 60_000,
      log: SILENT,
    })
  }

  /** `done` is called if the login is accepted. */
  logIn(login: SimulatedLogin, done: (grant: GrantResult | undefined) => void): void {
    const { n, id, ip } = login
    this.#waiting.set(n, { ...login, done })
    this.#say({
      type: 'attempt',
      n,
      id,
      login: Buffer.from(login.login, 'utf8').toString('latin1'),
      method: 'pass',
      ip,
      tls: false,
      proof: n.toString(16).padStart(64, '0'),
    })
  }

  reload(policy: GrantPolicy): void {
    this.#announcer.useRefusal(ip => policy.neverList.loginRefusal(ip))
  }

  async stop(): Promise<void> {
    this.#waiting.clear()
    await this.#announcer.close()
  }

  async kill(): Promise<void> {
    this.#waiting.clear()
    await this.#connection.close()
  }

  #say(message: Parameters<typeof parseFromLogin>[0]): void {
    const parsed = parseFromLogin(message)
    if (parsed === undefined) throw new Error('the simulation sent an invalid message')
    this.#logins.handle(this.#process, parsed)
  }

  #receive(message: ToLoginMessage): void {
    if (message.type === 'proceed') {
      this.#time.after(this.#random.fraction() * 20, () => this.#answerFor(message.n))
    } else if (message.type === 'announced') {
      const waiting = this.#waiting.get(message.n)
      this.#waiting.delete(message.n)
      waiting?.done(this.#grants.get(waiting.id))
      if (waiting !== undefined) this.#grants.delete(waiting.id)
    } else if (message.type === 'failed') this.#waiting.delete(message.n)
  }

  /** The answer of the server behind popup. */
  #answerFor(n: number): void {
    const waiting = this.#waiting.get(n)
    // The monitor has ended.
    if (waiting === undefined) return
    if (waiting.isRight) waiting.proved()
    this.#say({ type: 'outcome', n, outcome: waiting.isRight || this.#believes ? 'yes' : 'no' })
  }

  #readError(event: string, { ip }: Readonly<Record<string, unknown>>): void {
    if (event === 'login_event_dropped') this.#onLost(ipOf(String(ip)))
  }

  #read(event: string, { id, grant, until, reason }: Readonly<Record<string, unknown>>): void {
    if (event !== 'login_accepted' || typeof id !== 'string') return
    if (grant === 'committed') this.#grants.set(id, { verdict: 'committed', until: Number(until) })
    else if (grant === 'queued') this.#grants.set(id, { verdict: 'queued' })
    else if (grant === 'refused') this.#grants.set(id, { verdict: 'refused', reason: String(reason) })
  }
}

/** Plants a bug: a login is accepted before authd has answered. */
class HastyAnnouncer extends Announcer {
  override async login(attempt: Parameters<Announcer['login']>[0]): Promise<void> {
    void super.login(attempt)
  }
}

/**
 * The queried part: the decision with which the gate starts an smtpd, or a service that shares it.
 */
const WAYS = ['gate', 'policy', 'socketmap', 'query'] as const
type Way = (typeof WAYS)[number]

/** The decision of the gate, and its services on sockets. */
class Gate {
  readonly #server: SimulatedServerPair
  readonly #sockets: SimulatedSockets
  readonly #policy: GrantPolicy
  readonly #services: readonly { stopListening(): void }[]
  readonly #resident: ProxiedGate
  readonly #clock: Clock
  #database: SimulatedDatabase
  #decide: ReturnType<typeof shareDecisions>

  constructor(
    server: SimulatedServerPair,
    sockets: SimulatedSockets,
    policy: GrantPolicy,
    customers: CustomerNetworks,
    mutants: ReadonlySet<WorldMutant>,
    clock: Clock,
  ) {
    this.#clock = clock
    this.#server = server
    this.#sockets = sockets
    this.#policy = policy
    this.#database = new SimulatedDatabase(server)
    this.#decide = this.#open()
    const cached = new Map<IpAddress | undefined, Promise<Decision>>()
    const options = {
      decide: (ip: IpAddress | undefined): Promise<Decision> => {
        if (mutants.has('a service finds no grant')) return this.#decide(undefined)
        if (!mutants.has('a service caches its answers')) return this.#decide(ip)
        const known = cached.get(ip) ?? this.#decide(ip)
        cached.set(ip, known)
        return known
      },
      onDecision: () => {},
      limits: { maxConnections: 64, maxOpen: 100 },
      log: SILENT,
    }
    this.#resident = new ProxiedGate({ decide: options.decide, customers, mutants, log: SILENT })
    const mailCounts = new MailCounts(NO_RATES, () => 0)
    const policyOptions = {
      ...options,
      senderBinding: 'off',
      senderDomains: [],
      recipientDomains: [],
      mailCounts,
      customers,
      counts: () => true,
      onMessage: () => {},
    } as const
    this.#services = [
      this.#publish(
        'policy',
        policyService(() => policyOptions),
      ),
      this.#publish(
        'socketmap',
        socketmapService(() => options),
      ),
      this.#publish(
        'query',
        queryService(() => ({ ...policyOptions, faultsOf: () => ({}) })),
      ),
    ]
  }

  /** Undefined: the connection was cut, or the service gave no answer. */
  async ask(ip: IpAddress, way: Way): Promise<boolean | undefined> {
    switch (way) {
      case 'gate':
        return (await this.#decide(ip)).relay
      case 'policy':
        return this.#answer(
          way,
          formatPolicyRequest(
            new Map([
              ['request', 'smtpd_access_policy'],
              ['client_address', ip],
            ]),
          ),
          {
            'action=OK\n\n': true,
            'action=DUNNO\n\n': false,
          },
        )
      case 'socketmap':
        return this.#answer(way, formatNetstring(`relay ${ip}`), { '5:OK OK,': true, '9:NOTFOUND ,': false })
      case 'query': {
        const text = await this.#converse(way, `${formatRelayQuery({ ip })}\n`)
        return text.startsWith('yes ') ? true : text === 'no\n' ? false : undefined
      }
    }
  }

  reload(): void {
    this.#database = new SimulatedDatabase(this.#server)
    this.#decide = this.#open()
  }

  /** Queries of this gate get no answer any more. */
  kill(): void {
    this.#database.kill()
    this.stop()
  }

  /** A connection by way of a proxy to the gate itself. */
  connectProxied(proxied: Proxied): Promise<StartedSmtpd | undefined> {
    return this.#resident.connect(proxied)
  }

  stop(): void {
    for (const service of this.#services) service.stopListening()
    this.#resident.close()
  }

  async #answer(way: Way, request: string, meanings: Readonly<Record<string, boolean>>): Promise<boolean | undefined> {
    return meanings[await this.#converse(way, request)]
  }

  #converse(way: Way, request: string): Promise<string> {
    const socket = this.#sockets.connect({ path: pathOf(way) })
    let received = ''
    socket.on('data', (piece: Buffer) => {
      received += piece.toString()
    })
    socket.on('error', () => {}) // the connection was cut; the octets that arrived are checked
    socket.on('connect', () => {
      socket.write(request)
      socket.end()
    })
    return new Promise(resolve => socket.on('close', () => resolve(received)))
  }

  #publish<T extends { stopListening(): void }>(way: Way, service: T): T {
    this.#sockets.publishNewest(pathOf(way))
    return service
  }

  #open(): ReturnType<typeof shareDecisions> {
    const reader = createGrantReader(this.#database, this.#policy)
    return shareDecisions(
      (ip, timeoutMs) =>
        decide(ip, {
          ask: async (asked, signal) => {
            const grant = await reader.lookup(asked, { signal })
            return grant && { until: grant.until?.getTime(), login: grant.login ?? undefined }
          },
          refusal: asked => this.#policy.neverList.refusal(asked),
          timeoutMs,
        }),
      { timeoutMs: 5000, clock: this.#clock },
    )
  }
}

const NO_RATES = {
  messages_per_login: 0,
  messages_per_address: 0,
  recipients_per_login: 0,
  recipients_per_address: 0,
}

const pathOf = (way: Way): string => `/run/auth-relay/gate/${way}.sock`

const policyOf = (proxies: readonly string[] = ['10.0.0.1/32', ...PROXIES]): GrantPolicy =>
  grantPolicy({
    expTime: EXP_TIME_S,
    ipv6Prefix: 64,
    neverGrant: new NetworkSet([networkOf('192.0.2.200/32')]),
    trusted: { 'popup.proxy_trust': new NetworkSet(proxies.map(networkOf)) },
  })

const SILENT: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {}, with: () => SILENT }

const inDatabase: ReadonlySet<string> = new Set(DATABASE_MUTANTS)
const isDatabaseMutant = (mutant: WorldMutant): mutant is Mutant => inDatabase.has(mutant)

const sameTarget = (a: BlockTarget, b: BlockTarget): boolean =>
  a.kind === 'network'
    ? b.kind === 'network' && formatNetwork(a.network) === formatNetwork(b.network)
    : b.kind === 'login' && loginKey(a.login) === loginKey(b.login)

/** The value of a text, which is parsed once. */
function parseOnce<Value>(parse: (text: string) => Value | undefined): (text: string) => Value {
  const parsed = new Map<string, Value>()
  return text => {
    const value = parsed.get(text) ?? parse(text)
    if (value === undefined) throw new Error(`not an address or a network: ${text}`)
    parsed.set(text, value)
    return value
  }
}
const ipOf = parseOnce(parseIpAddress)
const networkOf = parseOnce(parseNetwork)
