import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { asError, messageOf } from '../base/errors.ts'
import { TemporaryFault, UsageFault } from '../base/exit-status.ts'
import { createLog, type Log } from '../base/log.ts'
import { Restarts } from '../base/restarts.ts'
import { type BoundSocket, holdListeners } from '../process/bound-socket.ts'
import type { RunningDaemon } from '../process/lifecycle.ts'
import { type Ids, idsOf, isRoot } from '../process/privileges.ts'
import { formatSocketAddress } from '../process/socket-address.ts'
import { endingFields, startWorker, type WorkerProcess } from '../process/worker-process.ts'
import { daysLeft } from '../tunnel/certificate.ts'
import { writeSelfSigned } from '../tunnel/self-signed.ts'
import { rotateTicketKeys, type TicketKeys } from '../tunnel/ticket-keys.ts'
import { formatNetwork } from '../wire/ip-address.ts'
import { parseFromWorker, type Serve } from './control-messages.ts'
import { watchFiles } from '../tunnel/file-watch.ts'
import { filesOf, type Materials, type Plan, readMaterials, serveOrder } from './plan.ts'
import { servicesOf } from './services.ts'

const TICKET_KEY_LIFE = 12 * 3_600_000
const DAY = 86_400_000
const EXPIRY_WARNING_DAYS = 14
const STOP_GRACE = 2000

/**
 * Starts sslwrap as `readPlan` says, which is asked again at each SIGHUP. This process binds the ports, reads the keys and never reads a byte from the network; its workers have no privilege.
 * @throws UsageFault, TemporaryFault
 */
export async function startSupervisor(readPlan: () => Plan, script: string): Promise<RunningDaemon> {
  const supervisor = new Supervisor(readPlan, script)
  return supervisor.start()
}

class Supervisor {
  readonly #readPlan: () => Plan
  readonly #script: string
  readonly #log: Log
  /** Each worker with its place, 0 and up: one that is started again takes the place of the dead one. */
  readonly #workers = new Map<WorkerProcess, number>()
  /** For each place. */
  readonly #restarts = new Map<number, Restarts>()
  readonly #undo: (() => void)[] = []
  readonly #stop = new AbortController()
  readonly #started: Plan
  #plan: Plan
  #stopWatching = (): void => {}
  #metrics: string | undefined
  #ids: Ids | undefined
  /** For each listener of the plan a socket for each worker, or one for all. */
  #listeners: readonly (readonly BoundSocket[])[] = []
  #materials: Materials
  #ticketKeys: TicketKeys = rotateTicketKeys()

  constructor(readPlan: () => Plan, script: string) {
    this.#readPlan = readPlan
    this.#started = readPlan()
    this.#plan = this.#started
    this.#script = script
    this.#log = createLog('sslwrap', { level: this.#plan.logLevel })
    if (isRoot()) this.#ids = idsOf(this.#plan.user, 'sslwrap.user')
    else
      this.#log.warn('not-separated', {
        reason: 'not started as root: keys are read and TLS is spoken under one account',
      })
    this.#makeFirstCertificate()
    this.#materials = this.#readMaterials(this.#plan)
  }

  async start(): Promise<RunningDaemon> {
    this.#warnOfOldTls()
    this.#warnOfExpiry()
    try {
      for (const [index, { listen }] of this.#plan.listeners.entries()) {
        const held = await holdListeners(listen, this.#count, `sslwrap.listener[${index}].listen`)
        this.#listeners = [...this.#listeners, held]
      }
      await Promise.all(Array.from({ length: this.#count }, (_, place) => this.#startWorker(place)))
    } catch (error) {
      await this.stop()
      throw error
    }
    const rotation = setInterval(() => this.#rotate(), TICKET_KEY_LIFE)
    const expiry = setInterval(() => this.#warnOfExpiry(), DAY)
    this.#undo.push(
      () => clearInterval(rotation),
      () => clearInterval(expiry),
      () => this.#stopWatching(),
    )
    this.#watch()
    const ready = this.#listeners.flatMap(([held]) =>
      held === undefined ? [] : [`listen=${formatSocketAddress(held.address)}`],
    )
    if (this.#metrics !== undefined) ready.push(`metrics=${this.#metrics}`)
    return {
      ready: ready.join(' '),
      reload: () => this.#reloadOrKeep('signal'),
      stop: () => this.stop(),
    }
  }

  async stop(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    for (const undo of this.#undo) undo()
    for (const restarts of this.#restarts.values()) restarts.cancel()
    for (const listener of this.#listeners.flat()) listener.release()
    const workers = [...this.#workers.keys()]
    for (const { channel } of workers) channel.send({ type: 'drain' })
    const late = setTimeout(() => {
      for (const { child } of workers) child.kill('SIGKILL')
    }, this.#plan.drainLimit + STOP_GRACE)
    await Promise.all(workers.map(({ ended }) => ended))
    clearTimeout(late)
  }

  get #count(): number {
    return this.#plan.workers === 0 ? availableParallelism() : this.#plan.workers
  }

  #orderFor(place: number, plan = this.#plan, materials = this.#materials): Serve {
    const [ids, ticketKeys, workers] = [this.#ids, this.#ticketKeys, this.#count]
    return serveOrder(plan, materials, { ids, ticketKeys, workers, hasMetrics: place === 0 })
  }

  /** Reads the files and lets OpenSSL judge them here, so that no worker ever gets what it must refuse. @throws UsageFault */
  #readMaterials(plan: Plan): Materials {
    const materials = readMaterials(plan)
    try {
      servicesOf(this.#orderFor(0, plan, materials))
    } catch (error) {
      const why = messageOf(error)
      throw new UsageFault(`sslwrap: the certificates or the cipher list cannot be used: ${why}`, error)
    }
    return materials
  }

  /** Resolves when the worker serves. @throws UsageFault if it refuses what it is given, TemporaryFault if it ends. */
  #startWorker(place: number): Promise<void> {
    const restarts = this.#restarts.get(place) ?? new Restarts(() => void this.#startAgain(place))
    this.#restarts.set(place, restarts)
    restarts.began()
    const worker = startWorker(
      this.#script,
      ['--worker'],
      this.#listeners.map(held => held[place % held.length]?.descriptor).filter(descriptor => descriptor !== undefined),
      join(dirname(this.#script), 'openssl.cnf'),
    )
    this.#workers.set(worker, place)
    let serving = false
    const started = new Promise<void>((resolve, reject) => {
      worker.channel.onMessage(message => {
        const answer = parseFromWorker(message)
        if (answer?.type === 'serving') {
          serving = true
          this.#metrics ??= answer.metrics
          resolve()
          return
        }
        const reason = answer === undefined ? 'it sent what is no message' : answer.reason
        // While it serves, a worker that refuses new files goes on with the old ones.
        if (serving && answer !== undefined) this.#log.error('reload-refused', { pid: worker.child.pid, reason })
        else worker.child.kill('SIGKILL')
        reject(new TemporaryFault(`a worker of sslwrap cannot serve: ${reason}`))
      })
      void worker.ended.then(() => reject(new TemporaryFault('a worker of sslwrap ended before it served')))
    })
    void worker.ended.then(ending => {
      this.#workers.delete(worker)
      if (!serving || this.#stop.signal.aborted) return
      const wait = restarts.schedule()
      this.#log.error('worker-ended', { pid: worker.child.pid, ...endingFields(ending), retry_ms: wait })
    })
    worker.channel.send(this.#orderFor(place))
    return started
  }

  async #startAgain(place: number): Promise<void> {
    try {
      await this.#startWorker(place)
    } catch (error) {
      if (this.#stop.signal.aborted) return
      this.#log.error('worker-failed', { err: asError(error) })
      this.#restarts.get(place)?.schedule()
    }
  }

  #rotate(): void {
    this.#ticketKeys = rotateTicketKeys(this.#ticketKeys)
    for (const [{ channel }, place] of this.#workers) channel.send(this.#orderFor(place))
  }

  #watch(): void {
    this.#stopWatching()
    this.#stopWatching = watchFiles(filesOf(this.#plan), () => this.#reloadOrKeep('file'))
  }

  /**
   * Reads certificates, keys and the password again, at a signal the settings too; if anything cannot be used, all stays as it was.
   * What was bound or started with its settings keeps them.
   */
  #reloadOrKeep(cause: 'signal' | 'file'): void {
    let restartFor: readonly string[]
    try {
      const { plan, waiting } = cause === 'signal' ? this.#planAgain() : { plan: this.#plan, waiting: [] }
      this.#materials = this.#readMaterials(plan)
      this.#plan = plan
      restartFor = waiting
    } catch (error) {
      if (!(error instanceof UsageFault)) throw error
      for (const fault of error.faults)
        this.#log.error('reload-failed', { cause, reason: `${fault}; what was in use stays` })
      return
    }
    this.#rotate()
    if (cause === 'signal') this.#watch()
    this.#log.info('reloaded', { cause, restart_for: restartFor.length === 0 ? undefined : restartFor.join(' ') })
    if (cause === 'signal') this.#warnOfOldTls()
    this.#warnOfExpiry()
  }

  /**
   * The plan as the settings are now, but with the addresses, the account, the workers and the log level of the start, and the
   * names of the settings that therefore wait for a restart. @throws UsageFault if it contradicts itself.
   */
  #planAgain(): { readonly plan: Plan; readonly waiting: readonly string[] } {
    const [next, started] = [this.#readPlan(), this.#started]
    const waiting = Object.entries(FIXED).filter(
      ([, read]) => JSON.stringify(read(next)) !== JSON.stringify(read(started)),
    )
    const names = waiting.map(([name]) => name)
    const { user, workers, metricsListen, logLevel } = started
    const { listeners } = names.includes('sslwrap.listener') ? this.#plan : next
    return { plan: { ...next, listeners, user, workers, metricsListen, logLevel }, waiting: names }
  }

  #warnOfOldTls(): void {
    for (const { listen, versions, allow } of this.#plan.listeners) {
      if (versions !== 'old') continue
      this.#log.warn('old-tls', {
        listen: formatSocketAddress(listen),
        networks: allow?.networks.map(formatNetwork).join(' '),
        reason: 'TLS 1.0 and 1.1 can be broken: RFC 8996',
      })
    }
  }

  #warnOfExpiry(): void {
    const certificates = new Map(this.#materials.listeners.flatMap(l => l.certificates).map(c => [c.path, c]))
    for (const certificate of certificates.values()) {
      const days = daysLeft(certificate, Date.now())
      const fields = { path: certificate.path, days, expires: new Date(certificate.expires) }
      if (days < 0) this.#log.error('certificate-expired', fields)
      else if (days <= EXPIRY_WARNING_DAYS) this.#log.warn('certificate-expires', fields)
    }
  }

  #makeFirstCertificate(): void {
    const { selfSigned } = this.#plan
    if (selfSigned === undefined || existsSync(selfSigned.cert) || existsSync(selfSigned.key)) return
    const isUsed = this.#plan.listeners.some(({ certificates }) =>
      certificates.some(({ cert }) => cert === selfSigned.cert),
    )
    if (!isUsed) return
    try {
      writeSelfSigned(selfSigned, { names: selfSigned.names, now: Date.now() })
    } catch (error) {
      const why = messageOf(error)
      throw new UsageFault(
        `cannot make a first certificate: ${why}: name your own as sslwrap.cert and sslwrap.key`,
        error,
      )
    }
    this.#log.warn('self-signed', {
      path: selfSigned.cert,
      names: selfSigned.names.join(' '),
      reason: 'clients will complain: get a real one',
    })
  }
}

/** What a running sslwrap cannot change, by the setting that it comes from. */
const FIXED: Readonly<Record<string, (plan: Plan) => unknown>> = {
  log_level: ({ logLevel }) => logLevel,
  'sslwrap.listener': ({ listeners }) => listeners.map(({ listen }) => listen),
  'sslwrap.user': ({ user }) => user,
  'sslwrap.workers': ({ workers }) => workers,
  'sslwrap.metrics_listen': ({ metricsListen }) => metricsListen,
}
