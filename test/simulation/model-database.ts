import * as v from 'valibot'
import type { Database, DatabaseSession, DatabaseState, RunOptions } from '../../src/database/database.ts'
import { DatabaseUnavailable, OutcomeUnknown } from '../../src/database/errors.ts'
import type { Result, Statement, Value } from '../../src/database/statement.ts'
import {
  type IpAddress,
  type Network,
  networkContains,
  parseIpAddress,
  parseNetwork,
} from '../../src/wire/ip-address.ts'
import { loginKey } from '../../src/wire/login-event.ts'
import type { Random } from './random.ts'
import type { VirtualTime } from './virtual-time.ts'

/**
 * A row of `grants`; times in milliseconds by the clock of the database. A row is never changed,
 * only replaced.
 */
export type GrantRow = {
  readonly until: number
  readonly lastAuth: number
  readonly firstAuth: number
  readonly grantedFirst: number
  readonly hits: number
  readonly daemon: string
  readonly username: string | null
  readonly tls: boolean
  /** The IPv4 address that is embedded in the address. */
  readonly embedded: IpAddress | undefined
}

type BlockRow = {
  readonly network: Network | undefined
  readonly text: string | undefined
  readonly login: string | undefined
  readonly since: number
  until: number
}
type NeighbourRow = { readonly network: string; readonly login: string; readonly last: number }
type AllowanceRow = {
  readonly embedded: IpAddress | undefined
  readonly network: Network
  readonly text: string
  readonly since: number
  until: number
}

/** Bugs that a test plants, to show that the simulation finds them. */
export const DATABASE_MUTANTS = [
  'lookup ignores the end',
  'lookup ignores blocks',
  'lookup forgets blocks',
  'ended blocks refuse logins',
  'commits get lost',
  'a repeat counts from now',
  'the sweep deletes current grants',
  'the list leaves an address out',
  'the list leaves allowances out',
  'the list ignores blocks',
] as const
export type Mutant = (typeof DATABASE_MUTANTS)[number]

/** Milliseconds by which a planted bug deletes a grant too early. */
const EARLY_MS = 600_000

/** The tables of one server. */
export class Tables {
  readonly grants: Map<string, GrantRow>
  readonly blocks: BlockRow[]
  readonly allowances: AllowanceRow[]
  readonly neighbours: Map<string, NeighbourRow>

  constructor(from?: Tables) {
    this.grants = new Map(from?.grants)
    this.blocks = from?.blocks.map(row => ({ ...row })) ?? []
    this.allowances = from?.allowances.map(row => ({ ...row })) ?? []
    this.neighbours = new Map(from?.neighbours)
  }
}

/**
 * Semantics of the statements of src/grants/, on tables in memory. The same histories run on this
 * model and on PostgreSQL (test/database/model-database.test.ts), because the simulation relies on
 * the model.
 */
export class GrantStatements {
  readonly mutants: ReadonlySet<Mutant>

  constructor(mutants: Iterable<Mutant> = []) {
    this.mutants = new Set(mutants)
  }

  /**
   * Begins a statement at a time by the clock of the database. Returns a function that commits the
   * statement and returns raw rows. The rows show the data at the begin of the statement.
   */
  begin(tables: Tables, { name, text }: Statement<unknown>, values: readonly Value[], clock: number): Commit {
    if (name === 'record-logins') return this.#record(tables, values, clock)
    if (name === 'lookup-grants') return this.#answer(this.#lookups(tables, values, clock))
    if (name === 'current-grants') return this.#answer(this.#current(tables, values, clock))
    if (name === 'grant-pages') return () => [{ pages: '1' }]
    if (name === 'forget-neighbours') return on => forgetNeighbours(on, time(values[0], clock))
    if (name === 'sweep-grants') {
      const early = this.mutants.has('the sweep deletes current grants') ? EARLY_MS : 0
      return on => [{ removed: String(sweep(on, time(values[0], clock) + early)) }]
    }
    if (name === 'notify-change' || name === 'publish-ungrantable' || name === 'record-uses') return () => []
    if (text.includes('keep_history')) return () => []
    if (text.includes('INSERT INTO allowances')) return on => allow(on, values, clock)
    if (text.includes('UPDATE allowances')) return on => endAllowances(on, values[0], time(values[1], clock))
    if (text.includes('INSERT INTO blocks')) return on => block(on, values, clock)
    if (text.includes('UPDATE blocks')) return on => endRows(on.blocks, sameTarget(values), time(values[2], clock))
    if (text.includes('DELETE FROM grants')) return on => removeBlocked(on, values)
    throw new Error(`the model does not know the statement ${name ?? text}`)
  }

  #answer(rows: readonly unknown[]): Commit {
    return () => rows
  }

  #record(tables: Tables, values: readonly Value[], clock: number): Commit {
    const [ips, networks, times, daemons, , tls, logins, , refusals] = values.slice(0, 9).map(list)
    const now = time(values[13], clock)
    const [expMs, maxMs, refreshMs] = [number(values[9]) * 1000, number(values[10]) * 1000, number(values[11]) * 1000]
    const keepNames = values[12] === true
    const endsCount = !this.mutants.has('ended blocks refuse logins')
    const checked = (ips ?? []).map((ip, index) => {
      const login = String(logins?.[index])
      const embedded = addressOrNone(list(values[14] ?? [])[index])
      const blocked = tables.blocks.some(
        row =>
          (row.until > now || !endsCount) &&
          (contains(row.network, address(ip)) || contains(row.network, embedded) || row.login === loginKey(login)),
      )
      const own = times?.[index]
      return {
        network: String(networks?.[index]),
        at: typeof own === 'number' && !this.mutants.has('a repeat counts from now') ? now - own * 1000 : now,
        daemon: String(daemons?.[index]),
        username: keepNames ? login : null,
        tls: tls?.[index] === true,
        embedded,
        refused: refusals?.[index] ?? (blocked ? 'blocked' : null),
      }
    })
    return on => {
      const before = new Map(checked.map(({ network }) => [network, on.grants.get(network)?.until]))
      const written = new Map<string, number>()
      let fresh = false
      for (const row of loginsOfOthers(on, checked)) {
        const key = `${row.network} ${row.login}`
        const known = on.neighbours.get(key)
        if (known === undefined || row.last > known.last + 60_000) on.neighbours.set(key, row)
      }
      const isLost = this.mutants.has('commits get lost') && checked.length === 1 && now % 7 < 1
      for (const network of new Set(checked.map(login => login.network))) {
        const counted = checked.filter(login => login.network === network && login.refused === null)
        const newest = counted.reduce<(typeof counted)[number] | undefined>(
          (best, login) => (best === undefined || login.at >= best.at ? login : best),
          undefined,
        )
        if (newest === undefined) continue
        const row = renewed(on.grants.get(network), newest, Math.min(...counted.map(({ at }) => at)), counted.length, {
          now,
          expMs,
          maxMs,
          refreshMs,
        })
        if (row === undefined) continue
        written.set(network, row.until)
        fresh ||= row.grantedFirst === row.lastAuth
        if (!isLost) on.grants.set(network, row)
      }
      const outcomes = checked.map(({ network, at, refused }) => {
        if (refused !== null) return String(refused)
        return String(Math.floor((written.get(network) ?? before.get(network) ?? at + expMs) / 1000))
      })
      return [{ outcomes: outcomes.join(' '), fresh }]
    }
  }

  #lookups(tables: Tables, values: readonly Value[], clock: number): readonly unknown[] {
    const [ips, networks, embedded] = values.slice(0, 3).map(list)
    const [now, exp] = [time(values[3], clock), values[4]]
    return (ips ?? []).flatMap((ip, index) =>
      this.#lookup(tables, [ip, networks?.[index], embedded?.[index], exp], now).map(row => ({
        position: index + 1,
        ...row,
      })),
    )
  }

  #lookup(
    tables: Tables,
    [ip, row, ipv4, exp]: readonly (Value | undefined)[],
    now: number,
  ): readonly Readonly<Record<string, unknown>>[] {
    const asked = address(ip)
    const embedded = addressOrNone(ipv4)
    const isBlocked = tables.blocks.some(
      found =>
        found.until > now &&
        !(this.mutants.has('lookup forgets blocks') && found.since < now - 60_000) &&
        (contains(found.network, asked) || contains(found.network, embedded)),
    )
    if (isBlocked && !this.mutants.has('lookup ignores blocks')) return []
    const grant = row === null ? undefined : tables.grants.get(String(row))
    const ignoresEnd = this.mutants.has('lookup ignores the end')
    const found = [
      ...(grant !== undefined && (ignoresEnd || counts(tables, grant, now))
        ? [{ source: 'login', login: grant.username, until: grant.until, since: grant.lastAuth }]
        : []),
      ...tables.allowances
        .filter(allowance => isActive(allowance, now) && contains(allowance.network, asked))
        .map(({ until, since }) => ({ source: 'allowance', login: null, until, since })),
    ].sort((a, b) => (b.until === a.until ? 0 : b.until - a.until))
    return found.slice(0, 1).map(({ since, until, ...rest }) => ({
      ...rest,
      // No device binds a login in a simulation.
      device: null,
      logins: rest.source === 'login' ? neighboursOf(tables, String(row), now, number(exp ?? 0)) : [],
      granted:
        rest.source === 'login'
          ? neighboursOf(tables, String(row), now, number(exp ?? 0), grant?.grantedFirst ?? Infinity)
          : [],
      devices: [],
      until: moment(until),
      age: (now - since) / 1000,
      secondsLeft: Number.isFinite(until) ? (until - now) / 1000 : null,
    }))
  }

  #current(tables: Tables, [at, exp]: readonly Value[], clock: number): readonly unknown[] {
    const now = time(at, clock)
    const found = [
      ...[...tables.grants]
        .filter(([, grant]) => counts(tables, grant, now))
        .map(([network, { username, until, embedded }]) => ({
          network,
          source: 'login',
          login: username,
          until,
          embedded,
        })),
      ...tables.allowances
        .filter(row => isActive(row, now))
        .map(({ text, until, embedded }) => ({ network: text, source: 'allowance', login: null, until, embedded })),
    ].filter(
      ({ network, embedded }) =>
        this.mutants.has('the list ignores blocks') ||
        !tables.blocks.some(
          row => row.until > now && (overlap(row.network, network) || contains(row.network, embedded)),
        ),
    )
    const listed = this.mutants.has('the list leaves an address out')
      ? found.slice(1)
      : found.filter(({ source }) => source === 'login' || !this.mutants.has('the list leaves allowances out'))
    return listed.map(({ embedded, ...row }) => ({
      ...row,
      until: moment(row.until),
      secondsLeft: Number.isFinite(row.until) ? (row.until - now) / 1000 : null,
      hasDevice: false,
      logins: row.source === 'login' ? neighboursOf(tables, row.network, now, number(exp ?? 0)) : [],
    }))
  }
}

/** Logins of addresses with several logins, from the batch and from older grants. */
function loginsOfOthers(
  { grants }: Tables,
  checked: readonly {
    readonly network: string
    readonly at: number
    readonly username: string | null
    readonly refused: unknown
  }[],
): readonly NeighbourRow[] {
  const received = new Map<string, NeighbourRow>()
  const add = (network: string, username: string, last: number): void => {
    const login = loginKey(username)
    const key = `${network} ${login}`
    if (last > (received.get(key)?.last ?? -Infinity)) received.set(key, { network, login, last })
  }
  for (const { network, at, username, refused } of checked) {
    if (refused !== null || username === null) continue
    const others = checked.filter(other => other.network === network && other.refused === null)
    const isAlone = others.every(other => other.username === null || loginKey(other.username) === loginKey(username))
    if (!isAlone) add(network, username, at)
    const before = grants.get(network)
    if (before === undefined || before.username === null || before.until <= at) continue
    if (loginKey(before.username) === loginKey(username)) continue
    add(network, username, at)
    add(network, before.username, before.lastAuth)
  }
  return [...received.values()]
}

const neighboursOf = (
  tables: Tables,
  network: string,
  now: number,
  expSeconds: number,
  grantedFirst = -Infinity,
): readonly string[] =>
  [...tables.neighbours.values()]
    .filter(row => row.network === network && row.last > now - expSeconds * 1000 && row.last >= grantedFirst)
    .filter(row => !tables.blocks.some(({ login, until }) => login === row.login && until > now))
    .sort((a, b) => b.last - a.last || (a.login < b.login ? -1 : 1))
    .map(({ login }) => login)

/** Applies the changes of a statement and returns its rows as the driver would. */
type Commit = (tables: Tables) => readonly unknown[]

type Renewal = { readonly now: number; readonly expMs: number; readonly maxMs: number; readonly refreshMs: number }
type CountedLogin = {
  readonly at: number
  readonly daemon: string
  readonly embedded: IpAddress | undefined
  readonly username: string | null
  readonly tls: boolean
}

/** The row after a login; undefined if the row does not change. */
function renewed(
  old: GrantRow | undefined,
  login: CountedLogin,
  first: number,
  hits: number,
  { now, expMs, maxMs, refreshMs }: Renewal,
): GrantRow | undefined {
  const { at, daemon, username, tls, embedded } = login
  const limit = (grantedFirst: number): number => (maxMs > 0 ? grantedFirst + maxMs : Number.POSITIVE_INFINITY)
  if (old === undefined) {
    return {
      until: Math.min(at + expMs, limit(first)),
      lastAuth: at,
      firstAuth: first,
      grantedFirst: first,
      hits,
      daemon,
      username,
      tls,
      embedded,
    }
  }
  const isSame = old.daemon === daemon && old.username === username && old.tls === tls
  if (at >= old.lastAuth && at < old.lastAuth + refreshMs && at < old.until && isSame) return undefined
  const isValid = old.lastAuth <= now + 60_000
  const isNewer = at >= old.lastAuth || !isValid
  const grantedFirst =
    !isValid || old.until <= at
      ? first
      : at + expMs <= old.grantedFirst
        ? old.grantedFirst
        : Math.min(old.grantedFirst, first)
  const fresh = Math.min(at + expMs, limit(grantedFirst))
  return {
    until: isValid && at < old.lastAuth ? old.until : isValid ? fresh : Math.min(at + expMs, limit(first)),
    lastAuth: isValid ? Math.max(old.lastAuth, at) : at,
    firstAuth: isValid ? Math.min(old.firstAuth, first) : first,
    grantedFirst,
    hits: old.hits + hits,
    embedded,
    ...(isNewer ? { daemon, username, tls } : { daemon: old.daemon, username: old.username, tls: old.tls }),
  }
}

function counts(tables: Tables, grant: GrantRow, now: number): boolean {
  const name = grant.username === null ? undefined : loginKey(grant.username)
  const loginBlocked = tables.blocks.some(({ login, until }) => login !== undefined && login === name && until > now)
  return grant.until > now && grant.lastAuth <= now + 60_000 && !loginBlocked
}

function sweep(tables: Tables, now: number): number {
  const ended = [...tables.grants].filter(([, { until, lastAuth }]) => until <= now || lastAuth > now + 60_000)
  for (const [key] of ended) tables.grants.delete(key)
  return ended.length
}

function forgetNeighbours(tables: Tables, now: number): readonly unknown[] {
  for (const [key, { last }] of tables.neighbours) if (last < now - 86_400_000) tables.neighbours.delete(key)
  return []
}

function allow(tables: Tables, values: readonly Value[], clock: number): readonly unknown[] {
  const [network, seconds] = values
  const now = time(values[4], clock)
  endAllowances(tables, network, now)
  const until = seconds === null ? Number.POSITIVE_INFINITY : now + number(seconds) * 1000
  const embedded = addressOrNone(values[5])
  tables.allowances.push({ network: parsed(network), text: String(network), embedded, since: now, until })
  return [{ until: moment(until) }]
}

function block(tables: Tables, values: readonly Value[], clock: number): readonly unknown[] {
  const [network, login, seconds] = values
  const now = time(values[5], clock)
  endRows(tables.blocks, sameTarget(values), now)
  const until = seconds === null ? Number.POSITIVE_INFINITY : now + number(seconds) * 1000
  tables.blocks.push({
    network: network === null ? undefined : parsed(network),
    text: network === null ? undefined : String(network),
    login: login === null ? undefined : loginKey(String(login)),
    since: now,
    until,
  })
  return [{ until: moment(until) }]
}

function removeBlocked(tables: Tables, [network, login]: readonly Value[]): readonly unknown[] {
  const outer = network === null ? undefined : parsed(network)
  const name = login === null ? undefined : loginKey(String(login))
  const removed = [...tables.grants].filter(([key, { username, embedded }]) => {
    const row = parsed(key)
    const isInside = outer !== undefined && outer.prefixLength <= row.prefixLength && networkContains(outer, row.base)
    const isEmbedded = contains(outer, embedded)
    return isInside || isEmbedded || (name !== undefined && username !== null && loginKey(username) === name)
  })
  for (const [key] of removed) tables.grants.delete(key)
  return removed
}

function endRows<Row extends { until: number }>(
  rows: readonly Row[],
  isMeant: (row: Row) => boolean,
  now: number,
): readonly unknown[] {
  const ended = rows.filter(row => isMeant(row) && row.until > now)
  for (const row of ended) row.until = now
  return ended
}

/** An ended allowance is in force at no time. */
function endAllowances({ allowances }: Tables, network: Value | undefined, now: number): readonly unknown[] {
  const ended = allowances.filter(row => row.until > row.since && row.until > now).filter(sameNetwork(network))
  for (const row of ended) row.until = row.since
  return ended
}

const sameNetwork =
  (network: Value | undefined) =>
  (row: { readonly text: string | undefined }): boolean =>
    row.text === network
const sameTarget =
  ([network, login]: readonly Value[]) =>
  (row: BlockRow): boolean =>
    network === null ? row.login !== undefined && row.login === loginKey(String(login)) : row.text === network

const isActive = ({ since, until }: { readonly since: number; readonly until: number }, now: number): boolean =>
  since <= now && until > now
const contains = (network: Network | undefined, ip: IpAddress | undefined): boolean =>
  network !== undefined && ip !== undefined && networkContains(network, ip)

function overlap(network: Network | undefined, text: string): boolean {
  if (network === undefined) return false
  const other = parsed(text)
  const [outer, inner] = network.prefixLength <= other.prefixLength ? [network, other] : [other, network]
  return networkContains(outer, inner.base)
}

const known = new Map<string, Network>()
const addresses = new Map<string, IpAddress>()

function parsed(text: Value | undefined): Network {
  const name = String(text)
  const network = known.get(name) ?? parseNetwork(name)
  if (network === undefined) throw new Error(`not a network: ${name}`)
  known.set(name, network)
  return network
}

const addressOrNone = (text: Value | undefined): IpAddress | undefined =>
  typeof text === 'string' ? address(text) : undefined

function address(text: Value | undefined): IpAddress {
  const name = String(text)
  const ip = addresses.get(name) ?? parseIpAddress(name)
  if (ip === undefined) throw new Error(`not an address: ${name}`)
  addresses.set(name, ip)
  return ip
}

const time = (value: Value | undefined, clock: number): number => (value instanceof Date ? value.getTime() : clock)
const number = (value: Value | undefined): number => (typeof value === 'number' ? value : Number.NaN)
const moment = (milliseconds: number): Date | number =>
  Number.isFinite(milliseconds) ? new Date(milliseconds) : Number.POSITIVE_INFINITY
const list = (value: Value): readonly Value[] => (Array.isArray(value) ? value : [])

/** Milliseconds after which the standby has a commit that was answered before. */
export const STANDBY_LAG_MS = 200

/** Current behaviour of a server. */
export type Conditions = {
  /** No connection is possible. */
  down: boolean
  /** Longest time of each leg of a statement, in milliseconds. */
  delayMs: number
  /** Number of commits that are answered before the standby has them. */
  asynchronous: boolean
  /** The number of next statements that end with an unknown outcome. */
  unknownOutcomes: number
}

/** A primary with a standby, in virtual time. */
export class SimulatedServerPair {
  readonly conditions: Conditions = { down: false, delayMs: 2, asynchronous: false, unknownOutcomes: 0 }
  readonly statements: GrantStatements
  /** Milliseconds by which the clock of the database differs from virtual time. */
  clockOffset = 0
  /** Called when a change becomes visible. */
  onCommit: () => void = () => {}
  onNotify: () => void = () => {}
  primary = new Tables()
  #standby = new Tables()
  /** Incremented by each failover. Statements that ran on the old primary are lost. */
  #epoch = 0
  #standbyBehind = 0
  readonly #time: VirtualTime
  readonly #random: Random

  constructor(time: VirtualTime, random: Random, statements: GrantStatements) {
    this.#time = time
    this.#random = random
    this.statements = statements
  }

  get clock(): number {
    return this.#time.now + this.clockOffset
  }

  /** Promotes the standby. Data that the standby does not have is lost. */
  failOver(): void {
    this.#epoch += 1
    this.primary = new Tables(this.#standby)
    this.onCommit()
  }

  /** Runs a statement, or several in one transaction; returns the rows of each. */
  async run(given: readonly Given[], signal: AbortSignal | undefined): Promise<readonly Rows[]> {
    if (signal?.aborted === true) throw new DatabaseUnavailable('no connection within the deadline')
    const { promise, resolve, reject } = Promise.withResolvers<readonly Rows[]>()
    const onAbort = (): void => reject(new OutcomeUnknown('the deadline passed under a statement'))
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#begin(given, resolve, reject)
    try {
      return await promise
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** True if a failover now would lose commits that were answered. */
  get standbyIsBehind(): boolean {
    return this.#standbyBehind > 0
  }

  #begin(given: readonly Given[], resolve: (rows: readonly Rows[]) => void, reject: (error: Error) => void): void {
    if (this.conditions.down) {
      this.#later(() => reject(new DatabaseUnavailable('no primary among the database hosts')))
      return
    }
    const isUnknown = this.conditions.unknownOutcomes > 0
    if (isUnknown) this.conditions.unknownOutcomes -= 1
    const arrives = !isUnknown || this.#random.isTrue(0.5)
    const epoch = this.#epoch
    const lost = (): void => reject(new OutcomeUnknown('connection to the primary is closed'))
    this.#later(() => {
      if (!arrives || epoch !== this.#epoch) {
        lost()
        return
      }
      const { clock } = this
      const begun = given.map(({ statement, values }) => this.statements.begin(this.primary, statement, values, clock))
      this.#later(() => {
        if (epoch !== this.#epoch) {
          lost()
          return
        }
        const rows = this.#commit(begun)
        this.#later(() => (isUnknown || epoch !== this.#epoch ? lost() : resolve(rows)))
      })
    })
  }

  /** In synchronous mode no commit is visible before the standby has it. */
  #commit(commits: readonly Commit[]): readonly Rows[] {
    const epoch = this.#epoch
    const apply = (tables: Tables): readonly Rows[] => commits.map(commit => commit(tables))
    if (this.conditions.asynchronous || this.#standbyBehind > 0) {
      this.#standbyBehind += 1
      this.#time.after(STANDBY_LAG_MS, () => {
        this.#standbyBehind -= 1
        if (epoch === this.#epoch) apply(this.#standby)
      })
    } else apply(this.#standby)
    const rows = apply(this.primary)
    this.onCommit()
    return rows
  }

  #later(callback: () => void): void {
    this.#time.after(this.#random.fraction() * this.conditions.delayMs, callback)
  }
}

type Rows = readonly unknown[]
type Given = { readonly statement: Statement<unknown>; readonly values: readonly Value[] }

/**
 * The connection of one program to the database. After the program is killed, it receives no
 * answer.
 */
export class SimulatedDatabase implements Database {
  readonly #server: SimulatedServerPair
  #isKilled = false

  constructor(server: SimulatedServerPair) {
    this.#server = server
  }

  kill(): void {
    this.#isKilled = true
  }

  async query<Row>(
    statement: Statement<Row>,
    values: readonly Value[] = [],
    { signal }: RunOptions = {},
  ): Promise<Result<Row>> {
    if (statement.name === 'notify-change') {
      this.#server.onNotify()
      return { rows: [], count: 0 }
    }
    const [rows = []] = await this.#reach([{ statement, values }], signal)
    return { rows: rows.map(row => v.parse(statement.row, row)), count: rows.length }
  }

  /**
   * The only user of transactions also sends the next statement before it reads a row.
   */
  async transaction<T>(work: (session: DatabaseSession) => Promise<T>, { signal }: RunOptions = {}): Promise<T> {
    const given: Given[] = []
    await work(planner(given, () => []))
    const answers = await this.#reach(given, signal)
    let next = 0
    return work(planner([], () => answers[next++] ?? []))
  }

  script(): Promise<void> {
    throw new Error('a simulated database has its tables already')
  }

  state(): DatabaseState {
    return this.#server.conditions.down
      ? { state: 'down', reason: 'simulated', refusal: undefined }
      : { state: 'up', host: 'simulated', pooled: false, synchronousCommit: 'on' }
  }

  onStateChange(): () => void {
    return () => {}
  }

  async close(): Promise<void> {}

  async #reach(given: readonly Given[], signal: AbortSignal | undefined): Promise<readonly Rows[]> {
    if (this.#isKilled) return new Promise(() => {})
    const answers = await this.#server.run(given, signal)
    return this.#isKilled ? new Promise(() => {}) : answers
  }
}

function planner(given: Given[], answer: () => Rows): DatabaseSession {
  return {
    async query<Row>(statement: Statement<Row>, values: readonly Value[] = []): Promise<Result<Row>> {
      given.push({ statement, values })
      const rows = answer()
      return { rows: rows.map(row => v.parse(statement.row, row)), count: rows.length }
    },
    script: () => Promise.reject(new Error('no scripts in a transaction of the simulation')),
  }
}

/** Answers at once from the current tables. */
export function immediateDatabase(statements: GrantStatements, tables: () => Tables, clock: () => number): Database {
  const session: DatabaseSession = {
    async query<Row>(statement: Statement<Row>, values: readonly Value[] = []): Promise<Result<Row>> {
      const now = tables()
      const rows = statements.begin(now, statement, values, clock())(now)
      return { rows: rows.map(row => v.parse(statement.row, row)), count: rows.length }
    },
    script: () => Promise.reject(new Error('the model has its tables already')),
  }
  return {
    ...session,
    transaction: work => work(session),
    state: () => ({ state: 'up', host: 'model', pooled: false, synchronousCommit: 'on' }),
    onStateChange: () => () => {},
    close: () => Promise.resolve(),
  }
}
