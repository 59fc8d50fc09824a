import type { Random } from '../soak/fuzz/random.ts'
import type { DatabaseNode } from './database-node.ts'
import { pause } from './traffic.ts'

/** The roles of the nodes when a fault begins. */
export type Parts = {
  readonly leader: DatabaseNode
  readonly standby: DatabaseNode
  readonly others: readonly DatabaseNode[]
  readonly all: readonly DatabaseNode[]
  /** Addresses of the hosts that query the database. */
  readonly clientIps: readonly string[]
}

/** Causes the fault, keeps it for some time, and returns when `heal` may run. */
export type Fault = { readonly name: string; readonly strike: (parts: Parts, random: Random) => Promise<void> }

const seconds = (n: number): Promise<void> => pause(n * 1000)

/**
 * Cuts a node off from some addresses: drops the packets that it sends to them, the packets that
 * they send to it, or both.
 */
function cut(node: DatabaseNode, from: readonly DatabaseNode[], way: 'out' | 'in' | 'both'): void {
  for (const peer of from) {
    if (way !== 'in') node.dropTo(peer.ip)
    if (way !== 'out') peer.dropTo(node.ip)
  }
}

/**
 * The faults of a round. None of them stops Patroni for longer than ttl and continues it
 * afterwards. A separate test does this, because Patroni 3.0.2 then loses commits.
 */
export const FAULTS: readonly Fault[] = [
  {
    name: 'kill -9 of the postmaster',
    strike: async ({ leader }) => {
      leader.killPostmaster()
      await seconds(3)
    },
  },
  {
    name: 'kill -9 of Patroni and PostgreSQL',
    strike: async ({ leader }) => {
      leader.killDatabase()
      await seconds(26)
    },
  },
  {
    name: 'the machine is lost',
    strike: async ({ leader }) => {
      leader.setLink('down')
      leader.killDatabase()
      leader.killEtcd()
      await seconds(28)
    },
  },
  {
    name: 'the machine stalls for 5 s',
    strike: async ({ leader }) => {
      leader.stop('database')
      await seconds(5)
    },
  },
  {
    name: 'the machine stalls for 30 s and is reset',
    strike: async ({ leader }) => {
      leader.stop('database')
      await seconds(30)
      // Resets the node as a watchdog does.
      leader.killDatabase()
    },
  },
  {
    name: 'Patroni stalls for 5 s',
    strike: async ({ leader }) => {
      leader.stop('patroni')
      await seconds(5)
    },
  },
  {
    name: 'replication cut, then the machine is lost',
    strike: async ({ leader, others }) => {
      cut(leader, others, 'out')
      await seconds(1)
      leader.setLink('down')
      leader.killDatabase()
      await seconds(28)
    },
  },
  {
    name: 'the wait is cancelled, then the machine is lost',
    strike: async ({ leader, others }) => {
      cut(leader, others, 'out')
      await seconds(1.5)
      const cancelled = await leader.psql(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
      )
      if (cancelled?.includes('t') !== true) throw new Error('no wait for the standby was cancelled')
      leader.setLink('down')
      leader.killDatabase()
      await seconds(28)
    },
  },
  {
    name: 'leader cut off both ways',
    strike: async ({ leader, others }) => {
      cut(leader, others, 'both')
      await seconds(30)
    },
  },
  {
    name: 'leader cut off one way, outgoing',
    strike: async ({ leader, others }) => {
      cut(leader, others, 'out')
      await seconds(30)
    },
  },
  {
    name: 'leader cut off one way, incoming',
    strike: async ({ leader, others }) => {
      cut(leader, others, 'in')
      await seconds(30)
    },
  },
  {
    name: 'leader cut off from its clients',
    strike: async ({ leader, clientIps }) => {
      for (const ip of clientIps) leader.dropTo(ip)
      await seconds(8)
    },
  },
  {
    name: 'slow network of the leader',
    strike: async ({ leader }) => {
      leader.slow(256)
      await seconds(12)
    },
  },
  {
    name: 'the synchronous standby is killed',
    strike: async ({ standby }) => {
      standby.setLink('down')
      standby.killDatabase()
      await seconds(15)
    },
  },
  {
    name: 'full disk of the leader',
    strike: async ({ leader }) => {
      leader.fillDisk()
      await seconds(15)
    },
  },
  {
    name: "the leader's clock steps",
    strike: async ({ leader, others }, random) => {
      leader.setClock(random.pick([-300, 300, -45, 45]))
      for (const node of others) node.setClock(random.pick([-120, 0, 120]))
      await seconds(10)
    },
  },
  {
    name: 'restart of one etcd',
    strike: async ({ all }, random) => {
      random.pick(all).killEtcd()
      await seconds(2)
    },
  },
  {
    name: 'restart of every etcd',
    strike: async ({ all }) => {
      for (const node of all) node.killEtcd()
      await seconds(4)
    },
  },
  {
    name: 'switchover',
    strike: async ({ leader, standby }) => {
      await standby.switchover(leader.name, standby.name)
    },
  },
]
