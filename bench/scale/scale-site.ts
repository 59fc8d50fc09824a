import { Counters } from '../../src/authd/counters.ts'
import { GrantQueue } from '../../src/authd/grant-queue.ts'
import { createLog } from '../../src/base/log.ts'
import type { ConnectionOptions } from '../../src/database/connection-options.ts'
import { openDatabase } from '../../src/database/database.ts'
import type { GrantPolicy } from '../../src/grants/grant-policy.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import type { GrantWriter } from '../../src/grants/grant-store.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import type { LoginAnswer } from '../../src/wire/login-event.ts'
import { grantPolicy } from '../../test/harness/postgres/grant-policy.ts'
import { addressOf, userOf } from './scale-population.ts'

/** Number of connections, as authd and wrap open them. */
const CONNECTIONS = 4
/** authd's own `commit_wait`. */
const COMMIT_WAIT_MS = 800
/** Share of logins from an address with a grant in force, because devices poll. */
const RETURNING = 0.7

export type SiteOptions = {
  readonly writer: ConnectionOptions
  readonly reader: ConnectionOptions
  /** Grants in force at the start; see populate. */
  readonly grants: number
  readonly lifeSeconds: number
}

/** One POP3 host: authd's queue and its connection to the store. */
export type PopHost = { readonly queue: GrantQueue; readonly writer: GrantWriter; close(): Promise<void> }

/**
 * A site on the clock of the bench: POP3 hosts that grant, and gates that query. Both run the code
 * of authd and wrap, on one database that holds the grants of `populate`.
 */
export class Site {
  readonly #options: SiteOptions
  readonly #policy: GrantPolicy
  #start = Date.now()
  /** Seconds of the site's time since the start. */
  #elapsed = 0
  #newcomers = 0
  #logins = 0

  constructor(options: SiteOptions) {
    this.#options = options
    this.#policy = grantPolicy({ expTime: options.lifeSeconds })
  }

  get elapsed(): number {
    return this.#elapsed
  }

  get now(): Date {
    return new Date(this.#start + this.#elapsed * 1000)
  }

  /** Time of the first grants; call this directly before `populate`. */
  begin(): void {
    this.#start = Date.now()
  }

  advance(seconds: number): void {
    this.#elapsed += seconds
  }

  openHost(): PopHost {
    const database = openDatabase({
      ...this.#options.writer,
      applicationName: 'authd',
      max: CONNECTIONS,
      planOnce: true,
    })
    const writer = createGrantWriter(database, this.#policy, { now: () => this.now })
    const queue = new GrantQueue({
      store: writer,
      log: createLog('authd', { level: 'error' }),
      counters: new Counters(),
      clock: () => this.now.getTime(),
      monotonic: () => performance.now(),
      commitWait: COMMIT_WAIT_MS,
    })
    return {
      queue,
      writer,
      async close() {
        queue.close()
        await database.close()
      },
    }
  }

  openGate(connections = CONNECTIONS) {
    const database = openDatabase({
      ...this.#options.reader,
      applicationName: 'auth-relay wrap',
      max: connections,
    })
    const reader = createGrantReader(database, this.#policy, { now: () => this.now })
    return { reader, close: () => database.close() }
  }

  /** One login at a host. Resolves with the answer for popup. */
  login(host: PopHost): Promise<LoginAnswer> {
    const n = this.#nextClient()
    const id = `b7c41d.${this.#logins++}`
    return new Promise(resolve =>
      host.queue.submit({
        event: { id, ip: addressOf(n), daemon: 'popup', tls: true, method: 'pass', user: userOf(n) },
        source: 'socket',
        answer: resolve,
      }),
    )
  }

  /** Number of a client that never logged in. */
  clientWithoutGrant(): number {
    return (
      this.#options.grants +
      this.#newcomers +
      Math.floor(Math.random() * (2 ** 24 - this.#options.grants - this.#newcomers))
    )
  }

  /** Number of a client with a grant in force. */
  clientWithGrant(): number {
    const ended = Math.ceil((this.#options.grants * this.#elapsed) / this.#options.lifeSeconds) + 1
    return ended + Math.floor(Math.random() * (this.#options.grants - ended))
  }

  #nextClient(): number {
    if (Math.random() < RETURNING) return this.clientWithGrant()
    return this.#options.grants + this.#newcomers++
  }
}
