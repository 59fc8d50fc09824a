import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { TestNetwork } from '../harness/hosts/network-namespace.ts'
import { DEBIAN_POSTGRES } from '../harness/postgres/postgres-cluster.ts'
import { command, describeWith, NETWORK_NAMESPACES, ROOT } from '../harness/runner/describe-with.ts'
import { Random } from '../soak/fuzz/random.ts'
import { type ClusterOptions, DatabaseCluster, HEALING, QUERY_PAUSE } from './database-cluster.ts'
import { type DatabaseNode, PASSWORDS, TTL } from './database-node.ts'
import { FAULTS, type Fault } from './faults.ts'
import { ClientHost, GateHost, Pop3Host } from './site.ts'
import { pause, Traffic } from './traffic.ts'

const ROUNDS = Number(process.env['CLUSTER_ROUNDS'] ?? '100')
/** Time after the start at which the last round may begin. */
const MINUTES = Number(process.env['CLUSTER_MINUTES'] ?? '300')
const SEED = Number(process.env['CLUSTER_SEED'] ?? '24')
/** Parts of the names of the selected faults; empty: all. */
const WANTED = (process.env['CLUSTER_FAULTS'] ?? '').split(',').filter(Boolean)
/**
 * Differences between the clocks of the POP3 hosts or gates and the clocks of the databases, in
 * seconds. The programs must work with any difference.
 */
const CLOCKS = { pop3: [240, -240], gates: [-180, 420] }
/**
 * Longest time for which popup may wait for a grant, in milliseconds: `grant_wait`, and a late
 * timer on a machine that also runs three databases.
 */
const LONGEST_GRANT_WAIT = 1000 + 1000
/** Longest wait for the reply to PASS: the same, and the queue of password checks. */
const LONGEST_PASS = 1000 + 20_000
/** Duration of the load before a fault, in milliseconds. */
const CALM = 3000

const [PATRONI = '0'] = /[\d.]+/.exec(patroniVersion()) ?? []
/**
 * Patroni up to 3.0.2, with version 3 of etcd's interface, can take the leader key from its new
 * holder after a stop or a cut of more than ttl.
 */
const TAKES_KEY_BACK = ['3.0.0', '3.0.1', '3.0.2'].includes(PATRONI) || Number.parseFloat(PATRONI) < 3
/** The version of the interface with which this Patroni loses no commit. */
const DCS = TAKES_KEY_BACK ? 'etcd' : 'etcd3'

function patroniVersion(): string {
  try {
    return execFileSync('patroni', ['--version'], { encoding: 'utf8' })
  } catch {
    return '' // not installed: the tests are skipped
  }
}

const NEEDS = [ROOT, NETWORK_NAMESPACES, DEBIAN_POSTGRES, command('patroni'), command('etcd', 'etcd-server')]

type Round = {
  readonly fault: string
  readonly logins: number
  readonly committed: number
  readonly queued: number
  readonly lost: number
  readonly wrongPositives: number
  /** Seconds from the fault to the last wrong negative answer. */
  readonly untilYes: number
  /** Longest wait for the reply to PASS, in milliseconds. */
  readonly worstWait: number
}

class Site {
  readonly network = new TestNetwork('192.0.2.1', '2001:db8::1')
  cluster: DatabaseCluster | undefined
  readonly pop3: Pop3Host[] = []
  readonly gates: GateHost[] = []

  async start(kind: ClusterOptions): Promise<{ readonly clients: ClientHost; readonly cluster: DatabaseCluster }> {
    const cluster = await DatabaseCluster.start(this.network, kind)
    this.cluster = cluster
    const { leader } = await cluster.whole()
    await leader.psql('CREATE DATABASE pop3authd', 'postgres')
    const clients = new ClientHost(this.network)
    const options = { databases: DatabaseCluster.ips, requireSync: kind.synchronous }
    for (const [index, clock] of CLOCKS.pop3.entries()) {
      const n = index + 1
      this.pop3.push(await Pop3Host.start(this.network, `192.0.2.2${n}`, `2001:db8::2${n}`, { ...options, clock }))
    }
    for (const [index, clock] of CLOCKS.gates.entries()) {
      const n = index + 1
      this.gates.push(await GateHost.start(this.network, `192.0.2.3${n}`, `2001:db8::3${n}`, { ...options, clock }))
    }
    await this.pop3[0]?.migrate(PASSWORDS.postgres)
    for (const host of [...this.pop3, ...this.gates]) await host.startPrograms()
    return { clients, cluster }
  }

  parts() {
    const nodes = this.cluster?.nodes ?? []
    const rowsInvalidUntil = (): number => Math.max(...nodes.map(node => node.rowsInvalidUntil))
    return { pop3: this.pop3, gates: this.gates, rowsInvalidUntil }
  }

  async stop(): Promise<void> {
    for (const gate of this.gates) gate.close()
    await Promise.all([...this.pop3, ...this.gates].map(({ stack }) => stack.stop()))
    await this.cluster?.remove()
    this.network.remove()
  }
}

/** Addresses in a table, read from the node's server. */
async function addresses(node: DatabaseNode, statement: string): Promise<ReadonlySet<string>> {
  return new Set(await eventually(`${node.name} answers`, () => node.psql(statement), HEALING))
}

/**
 * Compares the answers that clients received with the databases. Returns the addresses that were
 * lost since the last call.
 */
async function lostLogins(
  traffic: Traffic,
  leader: DatabaseNode,
  others: readonly DatabaseNode[],
): Promise<readonly string[]> {
  const promised = traffic.committed()
  const blocked = new Set(traffic.blocked.keys())
  const [lsn = ''] =
    (await eventually('the leader answers', () => leader.psql('SELECT pg_current_wal_lsn()'), HEALING)) ?? []
  const lost = new Set<string>()
  for (const node of [leader, ...others]) {
    if (node !== leader) {
      await eventually(
        `${node.name} has replayed`,
        async () => {
          const answer = await node.psql(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`)
          return answer?.[0] === 't'
        },
        HEALING,
      )
    }
    const granted = await addresses(node, 'SELECT host(ip) FROM grants')
    const received = await addresses(node, 'SELECT DISTINCT host(ip) FROM login_event WHERE refused IS NULL')
    for (const ip of promised) {
      const mayBeMissing = blocked.has(ip) || traffic.mayBeInvalid(ip)
      if (!received.has(ip) || (!granted.has(ip) && !mayBeMissing)) lost.add(ip)
    }
    for (const ip of granted) {
      if (!traffic.logins.has(ip)) traffic.violations.push({ rule: 'no row without a login', ip, detail: node.name })
    }
    const blocks = await addresses(node, 'SELECT host(net) FROM blocks')
    for (const [ip, done] of traffic.blocked) if (done !== undefined && !blocks.has(ip)) lost.add(`block ${ip}`)
  }
  const found = [...lost].filter(ip => !traffic.lost.has(ip))
  for (const ip of found) traffic.lost.add(ip)
  return found
}

function report(title: string, rounds: readonly Round[]): void {
  const times = rounds.map(({ untilYes }) => untilYes).sort((a, b) => a - b)
  const sum = (pick: (round: Round) => number): number => rounds.reduce((all, round) => all + pick(round), 0)
  const lines = [
    title,
    ...rounds.map(
      (round, n) =>
        `${String(n + 1).padStart(3)} ${round.fault.padEnd(46)} logins ${round.logins} committed ${round.committed} queued ${round.queued} lost ${round.lost} false ${round.wrongPositives} yes after ${round.untilYes.toFixed(1)} s, PASS at most ${Math.round(round.worstWait)} ms`,
    ),
    `rounds ${rounds.length}, logins ${sum(({ logins }) => logins)}, lost ${sum(({ lost }) => lost)}, false ${sum(({ wrongPositives }) => wrongPositives)}, seconds until the gate says yes: median ${(times[Math.floor(times.length / 2)] ?? 0).toFixed(1)}, worst ${(times.at(-1) ?? 0).toFixed(1)}`,
  ]
  console.log(lines.join('\n'))
}

/** One fault under load, until the cluster is complete again. */
async function playRound(
  fault: Fault,
  site: Site,
  cluster: DatabaseCluster,
  traffic: Traffic,
  random: Random,
): Promise<Round> {
  const { leader, standby, others } = await cluster.whole()
  const clientIps = [...site.pop3, ...site.gates].map((_, n) => `192.0.2.${n < 2 ? 21 + n : 29 + n}`)
  const before = { logins: traffic.logins.size, violations: traffic.violations.length }
  traffic.worstWait = 0
  await pause(CALM)
  const began = performance.now()
  const operator = traffic.block(random.pick(site.pop3))
  await fault.strike({ leader, standby, others, all: cluster.nodes, clientIps }, random)
  cluster.heal()
  await operator
  const healed = await cluster.whole()
  // Every gate gives a positive answer for a login that was committed after the fault.
  const known = traffic.committedCount
  await eventually('logins are committed again', () => traffic.committedCount > known + 2, 120_000)
  await eventually(
    'every gate gives positive answers again',
    () => performance.now() - traffic.lastNegative > 2500,
    120_000,
  )
  const lost = await lostLogins(traffic, healed.leader, healed.others)
  for (const ip of lost) console.log(`lost: ${ip}`)
  const wrong = traffic.violations.slice(before.violations)
  for (const { rule, ip, detail } of wrong) console.log(`violation: ${rule}: ${ip} ${detail}`)
  const logins = [...traffic.logins.values()].slice(before.logins)
  const counted = (grant: string): number => logins.filter(login => login.grant === grant).length
  return {
    fault: fault.name,
    logins: logins.length,
    committed: counted('committed'),
    queued: counted('queued'),
    lost: lost.length,
    wrongPositives: wrong.length,
    untilYes: Math.max(0, traffic.lastNegative - began) / 1000,
    worstWait: traffic.worstWait,
  }
}

describeWith(NEEDS, 'a cluster of three databases, two POP3 hosts and two gates', () => {
  test(`${ROUNDS} rounds, seed ${SEED}: no committed login is lost, and no positive answer is wrong`, async () => {
    const random = new Random(SEED)
    const site = new Site()
    const rounds: Round[] = []
    let traffic: Traffic | undefined
    try {
      const { clients, cluster } = await site.start({ synchronous: true, watchdog: false, dcs: DCS })
      const load = new Traffic({ ...site.parts(), clients }, new Random(SEED, 1))
      traffic = load
      load.start()
      const faults = FAULTS.filter(({ name }) => WANTED.length === 0 || WANTED.some(part => name.includes(part)))
      const bag: Fault[] = []
      const end = performance.now() + MINUTES * 60_000
      for (let n = 0; n < ROUNDS && performance.now() < end; n++) {
        // Every fault occurs once before any fault is repeated.
        if (bag.length === 0) bag.push(...faults)
        const fault = random.pick(bag)
        bag.splice(bag.indexOf(fault), 1)
        const round = await playRound(fault, site, cluster, load, random)
        rounds.push(round)
        report(`after round ${n + 1}`, [round])
      }
      await load.stop()
      expect(rounds.length, `CLUSTER_MINUTES=${MINUTES} ended the run early: set more minutes or fewer rounds`).toBe(
        ROUNDS,
      )
      const { leader, others } = await cluster.whole()
      // Every queued login is stored in the end, without a manual step.
      await eventually(
        'the queues are empty',
        async () => {
          const granted = await addresses(leader, 'SELECT DISTINCT host(ip) FROM login_event')
          return [...load.logins.values()].filter(({ ok }) => ok).every(({ ip }) => granted.has(ip))
        },
        60_000,
      )
      await lostLogins(load, leader, others)
      expect([...load.lost]).toEqual([])
      expect(load.violations).toEqual([])
      expect(load.refusedLogins).toBe(0)
      expect(load.worstGrantWait).toBeLessThan(LONGEST_GRANT_WAIT)
      expect(Math.max(...rounds.map(({ worstWait }) => worstWait))).toBeLessThan(LONGEST_PASS)
    } catch (error) {
      keepLogs(site)
      throw error
    } finally {
      report(`seed ${SEED}`, rounds)
      console.log(`popup waited for a grant for at most ${traffic?.worstGrantWait ?? 0} ms`)
      await traffic?.stop()
      await site.stop()
    }
  })

  /** One round on a new cluster. */
  async function oneRound(
    title: string,
    kind: ClusterOptions,
    faultOf: (traffic: Traffic, operator: Pop3Host) => Fault,
  ): Promise<Round & { readonly resets: number }> {
    const random = new Random(SEED)
    const site = new Site()
    let traffic: Traffic | undefined
    try {
      const { clients, cluster } = await site.start(kind)
      const load = new Traffic({ ...site.parts(), clients }, new Random(SEED, 1))
      traffic = load
      load.start()
      const [operator] = site.pop3
      if (operator === undefined) throw new Error('no POP3 host')
      const round = await playRound(faultOf(load, operator), site, cluster, load, random)
      report(title, [round])
      await load.stop()
      return { ...round, resets: cluster.nodes.filter(({ wasReset }) => wasReset).length }
    } catch (error) {
      keepLogs(site)
      throw error
    } finally {
      await traffic?.stop()
      await site.stop()
    }
  }

  test('with asynchronous replication the same test finds lost grants', async () => {
    const fault = FAULTS.find(({ name }) => name === 'replication cut, then the machine is lost')
    if (fault === undefined) throw new Error('no such fault')
    const round = await oneRound('asynchronous', { synchronous: false, watchdog: false, dcs: DCS }, () => fault)
    expect(round.lost).toBeGreaterThan(0)
  })

  test(`Patroni ${PATRONI} with etcd3, stopped for longer than ttl, ${TAKES_KEY_BACK ? 'loses commits of its successor' : 'loses nothing'}`, async () => {
    const round = await oneRound('etcd3', { synchronous: true, watchdog: false, dcs: 'etcd3' }, longStop)
    expect(round.resets).toBe(0)
    if (TAKES_KEY_BACK) expect(round.lost).toBeGreaterThan(0)
    else expect(round.lost).toBe(0)
  })

  test.runIf(DCS === 'etcd')(`Patroni ${PATRONI} with etcd, stopped for longer than ttl, loses nothing`, async () => {
    const round = await oneRound('etcd', { synchronous: true, watchdog: false, dcs: 'etcd' }, longStop)
    expect(round.lost).toBe(0)
    expect(round.wrongPositives).toBe(0)
  })

  test('a watchdog resets a host whose Patroni is stopped for longer than ttl, and nothing is lost', async () => {
    const round = await oneRound('watchdog', { synchronous: true, watchdog: true, dcs: 'etcd3' }, longStop)
    expect(round.resets).toBe(1)
    expect(round.lost).toBe(0)
    expect(round.wrongPositives).toBe(0)
  })
})

/**
 * Time for which both primaries run after a block on the new one: beyond the limit for a positive
 * answer, in milliseconds.
 */
const TWO_PRIMARIES = 10_000

/**
 * Stops Patroni on the leader until another node is the leader and has committed logins and a
 * block. The old primary runs on for TWO_PRIMARIES, and the gates ask about the blocked address.
 * Then Patroni continues.
 */
const longStop = (traffic: Traffic, operator: Pop3Host): Fault => ({
  name: 'Patroni stalls for longer than ttl',
  strike: async ({ leader, others: [asked] }) => {
    leader.stop('patroni')
    await eventually(
      'another node is the leader',
      async () => (await asked?.members())?.some(({ name, role }) => role === 'leader' && name !== leader.name),
      4 * TTL * 1000,
      QUERY_PAUSE,
    )
    const known = traffic.committedCount
    await eventually('logins are committed on the new leader', () => traffic.committedCount > known + 20, 60_000)
    await eventually('an address is blocked on the new leader', () => traffic.block(operator), 60_000)
    await pause(TWO_PRIMARIES)
    leader.resume()
  },
})

/** The logs of all programs, to find the cause of a failure. */
function keepLogs(site: Site): void {
  const directory = process.env['CLUSTER_LOGS']
  if (directory === undefined) return
  mkdirSync(directory, { recursive: true })
  for (const [n, { stack }] of [...site.pop3, ...site.gates].entries()) {
    writeFileSync(`${directory}/host${n}.log`, stack.transcript())
  }
  for (const node of site.cluster?.nodes ?? []) {
    for (const log of ['patroni', 'etcd'])
      copyFileSync(`${node.directory}/${log}.log`, `${directory}/${node.name}-${log}.log`)
  }
}
