import type { Random } from '../soak/fuzz/random.ts'
import type { ClientHost, GateHost, Pop3Host } from './site.ts'

/** One login of a client that logs in once; times in milliseconds of the test's monotonic clock. */
type Login = {
  readonly ip: string
  readonly sentAt: number
  answeredAt: number
  ok: boolean
  /** authd's answer: committed or queued; undefined until the answer comes. */
  grant: string
  readonly waited: number
  /**
   * The clock of a database was ahead at the login, or was set back later. The grant may be
   * invalid.
   */
  isByClockAhead: boolean
}

export type Violation = { readonly rule: string; readonly ip: string; readonly detail: string }

/** Number of newest logins that are looked up, so that each is looked up several times. */
const RECENT = 60
/**
 * One of eight queries of a gate is about a blocked address. The address has left the newest logins
 * by the time at which a positive answer counts.
 */
const BLOCKED_ONE_IN = 8
/** Pause between two logins of one host, and between two queries of one gate, in milliseconds. */
const PAUSE = 60

/**
 * Makes load, and records all answers to clients for the oracle. It does not run on a machine with
 * a fault.
 */
export class Traffic {
  readonly #pop3: readonly Pop3Host[]
  readonly #gates: readonly GateHost[]
  readonly #clients: ClientHost
  readonly #rowsInvalidUntil: () => number
  readonly #random: Random
  readonly logins = new Map<string, Login>()
  readonly #order: string[] = []
  /**
   * Time at which the command that blocked an address reported success; undefined while it runs.
   */
  readonly blocked = new Map<string, number | undefined>()
  readonly violations: Violation[] = []
  /** Results that were reported as done but are missing in the databases. */
  readonly lost = new Set<string>()
  /** Longest wait from PASS to its reply since the last round began. */
  worstWait = 0
  /** Longest time for which popup waited for a grant, in milliseconds. */
  worstGrantWait = 0
  refusedLogins = 0
  /** The last time of a wrong negative answer of a gate. */
  lastNegative = 0
  unknowns = 0
  #count = 0
  #running = true
  readonly #loops: Promise<void>[] = []

  constructor(
    parts: {
      readonly pop3: readonly Pop3Host[]
      readonly gates: readonly GateHost[]
      readonly clients: ClientHost
      /** Rows that were written before this time may be from the future of a database's clock. */
      readonly rowsInvalidUntil: () => number
    },
    random: Random,
  ) {
    this.#pop3 = parts.pop3
    this.#gates = parts.gates
    this.#clients = parts.clients
    this.#rowsInvalidUntil = parts.rowsInvalidUntil
    this.#random = random
  }

  start(): void {
    for (const host of this.#pop3) this.#loops.push(this.#loginLoop(host))
    for (const gate of this.#gates) this.#loops.push(this.#gateLoop(gate))
  }

  async stop(): Promise<void> {
    this.#running = false
    await Promise.all(this.#loops)
  }

  /** Addresses with the answer `committed`. */
  committed(): readonly string[] {
    return [...this.logins.values()].filter(({ grant }) => grant === 'committed').map(({ ip }) => ip)
  }

  /** Number of logins with the answer `committed`. */
  get committedCount(): number {
    return this.#order.length
  }

  /**
   * The grant of an address may not count, because the clock of a database was ahead at its login
   * or was set back since.
   */
  mayBeInvalid(ip: string): boolean {
    const login = this.logins.get(ip)
    if (login === undefined) return false
    login.isByClockAhead ||= login.answeredAt < this.#rowsInvalidUntil()
    return login.isByClockAhead
  }

  /** Blocks an address that has a grant. True if the command reported success. */
  async block(host: Pop3Host): Promise<boolean> {
    const candidates = this.#order.slice(-RECENT).filter(ip => !this.blocked.has(ip))
    const ip = candidates.length === 0 ? undefined : this.#random.pick(candidates)
    if (ip === undefined) return false
    this.blocked.set(ip, undefined)
    const code = await host.block(ip)
    if (code === 0) this.blocked.set(ip, performance.now())
    return code === 0
  }

  #fresh(): string {
    this.#count += 1
    const n = this.#count
    if (n >= 1 << 22) throw new Error('the test has no further address')
    return n % 2 === 0
      ? `10.${64 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`
      : `2001:db8:0:99:0:1:${(n >> 16).toString(16)}:${(n & 65_535).toString(16)}`
  }

  /** An address that never logs in. */
  #clientWithoutLogin(): string {
    const n = this.#random.int(50_000)
    return this.#random.oneIn(2) ? `10.200.${n >> 8}.${n & 255}` : `2001:db8:0:98::${n.toString(16)}`
  }

  async #loginLoop(host: Pop3Host): Promise<void> {
    while (this.#running) {
      const ip = this.#fresh()
      const login: Login = {
        ip,
        sentAt: performance.now(),
        answeredAt: 0,
        ok: false,
        grant: 'unknown',
        waited: 0,
        isByClockAhead: this.#rowsInvalidUntil() === Number.POSITIVE_INFINITY,
      }
      this.logins.set(ip, login)
      try {
        const { ok, grant = 'unknown', waited, grantWait } = await host.login(this.#clients, ip)
        login.ok = ok
        login.grant = grant
        login.answeredAt = performance.now()
        login.isByClockAhead ||= this.#rowsInvalidUntil() > login.answeredAt
        this.worstWait = Math.max(this.worstWait, waited)
        this.worstGrantWait = Math.max(this.worstGrantWait, grantWait)
        if (!ok) this.refusedLogins += 1
        if (grant === 'committed') this.#order.push(ip)
      } catch (error) {
        this.refusedLogins += 1
        this.violations.push({ rule: 'POP3 answers', ip, detail: String(error) })
      }
      await pause(PAUSE)
    }
  }

  /** An address for a query: a blocked one, one without a login, or one of the newest logins. */
  #asked(): string {
    const blocked = [...this.blocked.keys()].slice(-RECENT)
    if (blocked.length > 0 && this.#random.oneIn(BLOCKED_ONE_IN)) return this.#random.pick(blocked)
    if (this.#order.length === 0 || this.#random.oneIn(4)) return this.#clientWithoutLogin()
    return this.#random.pick(this.#order.slice(-RECENT))
  }

  async #gateLoop(gate: GateHost): Promise<void> {
    while (this.#running) {
      const ip = this.#asked()
      const askedAt = performance.now()
      const answer = await gate.ask(ip).catch(() => 'unknown' as const)
      const login = this.logins.get(ip)
      const blockedAt = this.blocked.get(ip)
      if (answer === 'unknown') this.unknowns += 1
      if (answer === 'yes') {
        if (login === undefined) this.violations.push({ rule: 'no yes without a login', ip, detail: 'stranger' })
        // standby_age, and the possible delay of this process.
        if (blockedAt !== undefined && askedAt > blockedAt + 3500) {
          const excess = Math.round(askedAt - blockedAt)
          this.violations.push({
            rule: 'no yes after a block',
            ip,
            detail: `${excess} ms after the block was answered`,
          })
        }
      } else if (login !== undefined && !this.blocked.has(ip)) {
        this.lastNegative = performance.now()
        if (answer === 'no' && !this.mayBeInvalid(ip)) {
          this.violations.push({
            rule: 'no plain no for a committed login',
            ip,
            detail: `asked ${Math.round(askedAt - (login?.answeredAt ?? 0))} ms after committed`,
          })
        }
      }
      await pause(PAUSE)
    }
  }
}

export const pause = (milliseconds: number): Promise<void> => new Promise(resolve => setTimeout(resolve, milliseconds))
