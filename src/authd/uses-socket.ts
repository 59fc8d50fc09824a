import { createServer, type Server, type Socket } from 'node:net'
import { openListener } from '../daemon/listener.ts'
import type { Log } from '../daemon/log.ts'
import type { Ids } from '../daemon/privileges.ts'
import { peerIsAllowed } from '../daemon/unix-peer.ts'
import type { GrantWriter, RelayUse } from '../grants/grant-store.ts'
import { LineSplitter } from '../wire/line-splitter.ts'
import { MAX_RELAY_TALLY_LINE, parseRelayTally, RELAY_VERDICTS, type RelayTally } from '../wire/relay-tally.ts'
import { parseRelayUse } from '../wire/relay-use.ts'
import type { Counters } from './counters.ts'

export type UsesSocketOptions = {
  readonly path: string
  readonly uids: ReadonlySet<number>
  /** Account that the socket is given to; left out: our own. */
  readonly owner?: Ids | undefined
  readonly store: Pick<GrantWriter, 'recordUses' | 'recordTallies'>
  readonly counters: Counters
  readonly log: Log
}

const MAX_CONNECTIONS = 256
/** Reports that wait for the store; beyond, the oldest go. They are history, and decide nothing. */
const MAX_WAITING = 10_000
/** The same for tallies: an hour of one door. */
const MAX_TALLIES = 3_600
const WRITE_EVERY = 1000
const DEADLINE = 10_000

/** The Unix socket where the gate, which may not write the database, reports who needed a grant and how often it decided what. Nothing is answered. */
export class UsesSocket {
  readonly #options: UsesSocketOptions
  readonly #server: Server
  readonly #open = new Set<Socket>()
  readonly #timer: NodeJS.Timeout
  #waiting: RelayUse[] = []
  #tallies: RelayTally[] = []
  #writing = false

  constructor(options: UsesSocketOptions) {
    this.#options = options
    this.#server = createServer(socket => this.#accept(socket))
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#timer = setInterval(() => void this.write(), WRITE_EVERY)
  }

  async listen(): Promise<void> {
    const { path, uids, owner } = this.#options
    await openListener(this.#server, { type: 'unix', path }, 'authd.uses_socket', {
      mode: uids.size === 0 ? 0o600 : 0o666,
      ...owner,
    })
  }

  close(): void {
    clearInterval(this.#timer)
    this.#server.close()
    for (const socket of this.#open) socket.destroy()
  }

  /** Stores what was reported. A store that is away costs history, nothing else. */
  async write(): Promise<void> {
    if (this.#writing || this.#waiting.length + this.#tallies.length === 0) return
    this.#writing = true
    try {
      await this.#writeUses()
      await this.#writeTallies()
    } catch (error) {
      this.#options.log.debug('uses-wait', { error: error instanceof Error ? error : new Error(String(error)) })
    } finally {
      this.#writing = false
    }
  }

  async #writeUses(): Promise<void> {
    const uses = this.#waiting.splice(0)
    try {
      await this.#options.store.recordUses(uses, { signal: AbortSignal.timeout(DEADLINE) })
    } catch (error) {
      this.#waiting = [...uses, ...this.#waiting].slice(-MAX_WAITING)
      throw error
    }
  }

  async #writeTallies(): Promise<void> {
    const tallies = this.#tallies.splice(0)
    try {
      await this.#options.store.recordTallies(tallies, { signal: AbortSignal.timeout(DEADLINE) })
    } catch (error) {
      // Who was refused lately is no news any more when the store is back.
      const kept = tallies.map(tally => ({ ...tally, recent: [] }))
      this.#tallies = [...kept, ...this.#tallies].slice(-MAX_TALLIES)
      throw error
    }
  }

  #accept(socket: Socket): void {
    const { counters, log, uids } = this.#options
    if (!peerIsAllowed(socket, uids)) {
      counters.foreignPeers += 1
      log.warn('foreign-peer', { reason: 'account may not report uses: add it to authd.uses_users' })
      socket.destroy()
      return
    }
    this.#open.add(socket)
    const splitter = new LineSplitter(MAX_RELAY_TALLY_LINE)
    socket.on('data', chunk => {
      for (const line of splitter.push(chunk).lines) this.#hear(line)
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#open.delete(socket))
  }

  #hear(line: string): void {
    const { counters } = this.#options
    const tally = parseRelayTally(line)
    if (tally !== undefined) {
      for (const verdict of RELAY_VERDICTS) counters.decisions[verdict] += tally.counts[verdict]
      if (this.#tallies.length >= MAX_TALLIES) this.#tallies.shift()
      this.#tallies.push(tally)
      return
    }
    const use = parseRelayUse(line)
    if (use === undefined) {
      counters.badAnnouncements += 1
      return
    }
    counters.uses += 1
    if (this.#waiting.length >= MAX_WAITING) this.#waiting.shift()
    this.#waiting.push({ ip: use.ip, door: use.door, at: new Date(use.at * 1000) })
  }
}
