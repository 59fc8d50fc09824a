import { chmodSync } from 'node:fs'
import { eventually } from '../harness/eventually.ts'
import type { TestNetwork } from '../harness/hosts/network-namespace.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { DatabaseNode, type Member } from './database-node.ts'

const PEERS = [
  { name: 'n1', ip: '192.0.2.11' },
  { name: 'n2', ip: '192.0.2.12' },
  { name: 'n3', ip: '192.0.2.13' },
]

/** Longest time until a healed cluster works again without a manual step, in milliseconds. */
export const HEALING = 180_000

/**
 * Pause between two queries for the state of the cluster, in milliseconds; Patroni checks every 2
 * s.
 */
export const QUERY_PAUSE = 250

export type ClusterOptions = {
  /** Patroni's strict synchronous mode. */
  readonly synchronous: boolean
  /** Patroni requires a watchdog, which resets the node. */
  readonly watchdog: boolean
  /** Patroni's interface to etcd: version 2 or version 3. */
  readonly dcs: 'etcd' | 'etcd3'
}

/** Three nodes with etcd, Patroni and PostgreSQL. */
export class DatabaseCluster {
  readonly nodes: readonly DatabaseNode[]
  readonly #directory = temporaryDirectory()
  readonly #synchronous: boolean

  private constructor(network: TestNetwork, options: ClusterOptions) {
    this.#synchronous = options.synchronous
    chmodSync(this.#directory.path, 0o755)
    const own = { ...options, directory: this.#directory.path }
    this.nodes = PEERS.map(peer => new DatabaseNode(network, PEERS, peer, own))
  }

  static readonly ips: readonly string[] = PEERS.map(({ ip }) => ip)

  static async start(network: TestNetwork, options: ClusterOptions): Promise<DatabaseCluster> {
    const cluster = new DatabaseCluster(network, options)
    try {
      await cluster.whole()
      return cluster
    } catch (error) {
      await cluster.remove()
      throw error
    }
  }

  /**
   * A complete cluster has three running members on one timeline and one leader. In synchronous
   * mode it also has a synchronous standby.
   */
  async whole(): Promise<{
    readonly leader: DatabaseNode
    readonly standby: DatabaseNode
    readonly others: readonly DatabaseNode[]
  }> {
    return eventually(
      'the cluster is complete again, without a manual step',
      async () => {
        for (const asked of this.nodes) {
          const members = await asked.members()
          const parts = members === undefined ? undefined : this.#parts(members)
          // Patroni may report a dead leader as running, so the leader must also accept a write.
          if (parts !== undefined && (await parts.leader.psql('SELECT txid_current()', 'postgres')) !== undefined)
            return parts
        }
        return undefined
      },
      HEALING,
      QUERY_PAUSE,
    )
  }

  #parts(members: readonly Member[]) {
    const named = (wanted: string): DatabaseNode | undefined => {
      const found = members.find(({ role }) => role === wanted)?.name
      return this.nodes.find(({ name }) => name === found)
    }
    const leader = named('leader')
    const standby = named(this.#synchronous ? 'sync_standby' : 'replica')
    const isRunning = members.every(({ state }) => /^(running|streaming)$/.test(state))
    const isOneTimeline = new Set(members.map(({ timeline }) => timeline)).size === 1
    if (members.length !== 3 || !isRunning || !isOneTimeline || leader === undefined || standby === undefined)
      return undefined
    return { leader, standby, others: this.nodes.filter(node => node !== leader) }
  }

  /** Ends every fault. */
  heal(): void {
    for (const node of this.nodes) node.heal()
  }

  async remove(): Promise<void> {
    for (const node of this.nodes) node.heal()
    await Promise.all(this.nodes.map(node => node.remove()))
    this.#directory.remove()
  }
}
