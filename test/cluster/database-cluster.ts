import { chmodSync } from 'node:fs'
import { eventually } from '../harness/eventually.ts'
import type { TestNetwork } from '../harness/network-namespace.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { DatabaseNode, type Member } from './database-node.ts'

const PEERS = [
  { name: 'n1', ip: '192.0.2.11' },
  { name: 'n2', ip: '192.0.2.12' },
  { name: 'n3', ip: '192.0.2.13' },
]

/** Longest time in which a healed cluster must be whole again without a hand, in milliseconds. */
const HEALING = 180_000

/** Three nodes with etcd, Patroni and PostgreSQL. */
export class DatabaseCluster {
  readonly nodes: readonly DatabaseNode[]
  readonly #directory = temporaryDirectory()
  readonly #synchronous: boolean

  private constructor(network: TestNetwork, synchronous: boolean) {
    this.#synchronous = synchronous
    chmodSync(this.#directory.path, 0o755)
    const options = { directory: this.#directory.path, synchronous }
    this.nodes = PEERS.map(peer => new DatabaseNode(network, PEERS, peer, options))
  }

  static readonly ips: readonly string[] = PEERS.map(({ ip }) => ip)

  static async start(
    network: TestNetwork,
    { synchronous }: { readonly synchronous: boolean },
  ): Promise<DatabaseCluster> {
    const cluster = new DatabaseCluster(network, synchronous)
    try {
      for (const node of cluster.nodes) node.startEtcd()
      for (const node of cluster.nodes) node.startPatroni()
      await cluster.whole()
      return cluster
    } catch (error) {
      await cluster.remove()
      throw error
    }
  }

  /**
   * Whole: three running members of one timeline, one leader, and a synchronous standby where
   * commits wait for one.
   */
  async whole(): Promise<{
    readonly leader: DatabaseNode
    readonly standby: DatabaseNode
    readonly others: readonly DatabaseNode[]
  }> {
    return eventually(
      'the cluster is whole again, without a hand',
      async () => {
        for (const asked of this.nodes) {
          const members = await asked.members()
          const parts = members === undefined ? undefined : this.#parts(members)
          // Patroni may call a dead leader running: it must take writes too.
          if (parts !== undefined && (await parts.leader.psql('SELECT txid_current()', 'postgres')) !== undefined)
            return parts
        }
        return undefined
      },
      HEALING,
    )
  }

  #parts(members: readonly Member[]) {
    const named = (wanted: RegExp): DatabaseNode | undefined => {
      const found = members.find(({ role }) => wanted.test(role))?.name
      return this.nodes.find(({ name }) => name === found)
    }
    const leader = named(/^Leader$/)
    const standby = named(this.#synchronous ? /^Sync Standby$/ : /^Replica$/)
    const isRunning = members.every(({ state }) => /^(running|streaming)$/.test(state))
    const isOneTimeline = new Set(members.map(({ timeline }) => timeline)).size === 1
    if (members.length !== 3 || !isRunning || !isOneTimeline || leader === undefined || standby === undefined)
      return undefined
    return { leader, standby, others: this.nodes.filter(node => node !== leader) }
  }

  /** Ends every fault, and starts what died. */
  heal(): void {
    for (const node of this.nodes) node.heal()
    for (const node of this.nodes) node.revive()
  }

  async remove(): Promise<void> {
    for (const node of this.nodes) node.heal()
    await Promise.all(this.nodes.map(node => node.remove()))
    this.#directory.remove()
  }
}
