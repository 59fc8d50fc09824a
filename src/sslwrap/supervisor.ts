/** The privileged process of sslwrap, which starts the workers and reloads the files. */
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { asError, messageOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { createLog, type Log } from '../base/log.ts'
import { SupervisedChild } from '../base/supervised-child.ts'
import { logReloadFaults, type RunningDaemon } from '../process/lifecycle.ts'
import { type BoundSocket, holdListeners } from '../process/listener.ts'
import { type Ids, idsOf, isRoot } from '../process/privileges.ts'
import { formatSocketAddress } from '../process/socket-address.ts'
import { describeEnding, endingFields, startWorker, type WorkerProcess } from '../process/worker-process.ts'
import { restartFields } from '../settings/reload.ts'
import type { Settings } from '../settings/settings.ts'
import { daysLeft, watchFiles } from '../tunnel/certificate.ts'
import { rotateTicketKeys, type TicketKeys } from '../tunnel/ticket-keys.ts'
import { formatNetwork } from '../wire/ip-address.ts'
import { parseTlsWorkerAnswer, type ServeOrder } from '../wire/workers/tls-worker.ts'
import { filesOf, type Materials, type Plan, readMaterials, serveOrder } from './plan.ts'
import { servicesOf } from './services.ts'

const TICKET_KEY_MS = 12 * 3_600_000
const DAY_MS = 86_400_000
const EXPIRY_WARNING_DAYS = 14
/** Time from the end of the drain time to SIGKILL. */
const STOP_GRACE_MS = 2_000

/** The plan and its settings. No settings: the plan was made from a command line. */
export type Planned = { readonly plan: Plan; readonly settings: Settings | undefined }

/**
 * Starts sslwrap with the plan of `readPlan`, which is called again at each SIGHUP. This process
 * binds the ports and reads the keys, but reads nothing from the network. Its workers have no
 * privileges.
 * @throws UsageFault, TemporaryFault
 */
export async function startSupervisor(readPlan: () => Planned, script: string): Promise<RunningDaemon> {
  const started = readPlan()
  const log = createLog('sslwrap', { level: started.plan.logLevel })
  const ids = isRoot() ? idsOf(started.plan.user, 'sslwrap.user') : undefined
  if (ids === undefined)
    log.warn('privileges_shared', {
      reason: 'not started as root: keys are read and TLS is spoken under one account',
    })
  await makeFirstCertificate(started.plan, log)
  return new Supervisor({ started, readPlan, script, ids, log }).start()
}

/**
 * Makes a self-signed certificate if a listener needs the file of the settings and the file is
 * missing.
 * @throws UsageFault
 */
async function makeFirstCertificate({ selfSigned, listeners }: Plan, log: Log): Promise<void> {
  if (selfSigned === undefined || existsSync(selfSigned.cert) || existsSync(selfSigned.key)) return
  const isUsed = listeners.some(({ certificates }) => certificates.some(({ cert }) => cert === selfSigned.cert))
  if (!isUsed) return
  // Loaded here alone, because node-forge is half of the code of sslwrap.
  const { writeSelfSigned } = await import('../tunnel/self-signed.ts')
  try {
    writeSelfSigned(selfSigned, { names: selfSigned.names, now: Date.now() })
  } catch (error) {
    const why = messageOf(error)
    throw new UsageFault(
      `cannot make a first certificate: ${why}: name your own as sslwrap.cert and sslwrap.key`,
      error,
    )
  }
  log.warn('certificate_self_signed', {
    path: selfSigned.cert,
    names: selfSigned.names.join(' '),
    reason: 'clients show a warning: install a certificate of an authority, see auth-relay cert --help',
  })
}

/** One run of a worker. `started` is fulfilled when it serves, and rejects with TemporaryFault. */
type ServingWorker = Pick<WorkerProcess, 'ended'> & {
  readonly process: WorkerProcess
  readonly orders: Orders
  readonly started: Promise<void>
  readonly hasServed: () => boolean
}

/** The parts of a supervisor that are known before it reads certificates. */
type Start = {
  readonly started: Planned
  readonly readPlan: () => Planned
  readonly script: string
  /** Ids of the workers. Undefined without the rights to change them. */
  readonly ids: Ids | undefined
  readonly log: Log
}

class Supervisor {
  readonly #readPlan: () => Planned
  readonly #script: string
  readonly #log: Log
  /** The workers by place. A restarted worker has the place of the one that ended. */
  readonly #workers: SupervisedChild<ServingWorker>[] = []
  readonly #undo: (() => void)[] = []
  readonly #stop = new AbortController()
  readonly #started: Planned
  /** Every worker has served once. */
  #isReady = false
  #plan: Plan
  #stopWatching = (): void => {}
  #metrics: string | undefined
  #ids: Ids | undefined
  /** For each listener of the plan: one socket for each worker, or one for all workers. */
  #listeners: readonly (readonly BoundSocket[])[] = []
  #materials: Materials
  #ticketKeys: TicketKeys = rotateTicketKeys()

  constructor({ started, readPlan, script, ids, log }: Start) {
    this.#readPlan = readPlan
    this.#started = started
    this.#plan = started.plan
    this.#script = script
    this.#ids = ids
    this.#log = log
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
      for (let place = 0; place < this.#count; place += 1) this.#workers.push(this.#workerFor(place))
      await Promise.all(this.#workers.map(worker => worker.start()?.started))
      this.#isReady = true
    } catch (error) {
      await this.stop()
      throw error
    }
    const rotation = setInterval(() => void this.#rotate(), TICKET_KEY_MS)
    const expiry = setInterval(() => this.#warnOfExpiry(), DAY_MS)
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
      reload: () => this.#reload('signal'),
      stop: () => this.stop(),
    }
  }

  async stop(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    for (const undo of this.#undo) undo()
    for (const listener of this.#listeners.flat()) listener.release()
    const drain = { after: 0, act: ({ process }: ServingWorker) => process.channel.send({ type: 'drain' }) }
    const kill = {
      after: this.#plan.drainLimit + STOP_GRACE_MS,
      act: ({ process }: ServingWorker) => process.child.kill('SIGKILL'),
    }
    await Promise.all(this.#workers.map(worker => worker.stop(drain, kill)))
  }

  get #count(): number {
    return this.#plan.workers === 0 ? availableParallelism() : this.#plan.workers
  }

  #orderFor(place: number, plan = this.#plan, materials = this.#materials): ServeOrder {
    const [ids, ticketKeys, workers] = [this.#ids, this.#ticketKeys, this.#count]
    return serveOrder(plan, materials, { ids, ticketKeys, workers, place })
  }

  /**
   * Reads the files and tests them with OpenSSL, so that no worker gets a file that it must
   * refuse.
   * @throws UsageFault
   */
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

  #workerFor(place: number): SupervisedChild<ServingWorker> {
    const worker = new SupervisedChild<ServingWorker>({
      launch: () => this.#launch(place),
      ended: (ending, { process, hasServed }) => {
        // A worker that fails at the start of sslwrap is not restarted: sslwrap ends.
        if (worker.isStopped || !(hasServed() || this.#isReady)) return
        const fields = { pid: process.child.pid, ...endingFields(ending) }
        this.#log.error('worker_ended', { ...fields, in_ms: worker.restart() })
      },
    })
    return worker
  }

  #launch(place: number): ServingWorker {
    const process = startWorker(
      this.#script,
      ['--worker'],
      this.#listeners.map(held => held[place % held.length]?.descriptor).filter(descriptor => descriptor !== undefined),
      join(dirname(this.#script), 'openssl.cnf'),
    )
    const orders = new Orders()
    let serving = false
    const started = new Promise<void>((resolve, reject) => {
      process.channel.onMessage(message => {
        const answer = parseTlsWorkerAnswer(message)
        orders.answered()
        if (answer?.type === 'serving') {
          serving = true
          this.#metrics ??= answer.metrics
          resolve()
          return
        }
        const reason = answer === undefined ? 'it sent an invalid message' : answer.reason
        // A running worker that refuses an order keeps the old one.
        if (serving && answer !== undefined) this.#log.error('reload_refused', { pid: process.child.pid, reason })
        else process.child.kill('SIGKILL')
        reject(new TemporaryFault(`a worker of sslwrap cannot serve: ${reason}`))
      })
      void process.ended.then(ending => {
        orders.end()
        reject(new TemporaryFault(`a worker of sslwrap ended before it served: ${describeEnding(ending)}`))
      })
    })
    started.catch((error: unknown) => {
      if (this.#isReady && !this.#stop.signal.aborted) this.#log.error('worker_failed', { reason: asError(error) })
    })
    const run = { process, orders, started, hasServed: () => serving, ended: process.ended }
    void this.#order(run, place)
    return run
  }

  /**
   * Makes a new ticket key and sends every worker an order. Fulfilled when each worker has answered
   * or has ended.
   */
  async #rotate(): Promise<void> {
    this.#ticketKeys = rotateTicketKeys(this.#ticketKeys)
    await Promise.all(this.#workers.map(({ run }, place) => (run === undefined ? undefined : this.#order(run, place))))
  }

  #order({ process, orders }: Pick<ServingWorker, 'process' | 'orders'>, place: number): Promise<void> {
    process.channel.send(this.#orderFor(place))
    return orders.sent()
  }

  #watch(): void {
    this.#stopWatching()
    this.#stopWatching = watchFiles(filesOf(this.#plan), () => {
      void this.#reload('file').catch((error: unknown) => logReloadFaults(this.#log, 'file', error))
    })
  }

  /**
   * Reads certificates, keys and the password again, and at a signal the settings too. If one of
   * them is invalid, all old ones stay in force. Sockets and workers keep the settings of their
   * start.
   * @throws UsageFault
   */
  async #reload(cause: 'signal' | 'file'): Promise<void> {
    const { plan, waiting } = cause === 'signal' ? this.#planAgain() : { plan: this.#plan, waiting: {} }
    this.#materials = this.#readMaterials(plan)
    this.#plan = plan
    if (cause === 'signal') this.#watch()
    await this.#rotate()
    this.#log.info('settings_reloaded', { trigger: cause, ...waiting })
    if (cause === 'signal') this.#warnOfOldTls()
    this.#warnOfExpiry()
  }

  /**
   * Makes a plan of the current settings, with the addresses, the account, the workers and the log
   * level of the start. `waiting` names the changed settings that need a restart.
   * @throws UsageFault if the settings contradict each other.
   */
  #planAgain(): { readonly plan: Plan; readonly waiting: { readonly restart_for?: string } } {
    const [next, started] = [this.#readPlan(), this.#started]
    const { user, workers, metricsListen, logLevel } = started.plan
    const addresses = ({ listeners }: Plan): string => JSON.stringify(listeners.map(({ listen }) => listen))
    const { listeners } = addresses(next.plan) === addresses(started.plan) ? next.plan : this.#plan
    const isOfSettings = next.settings !== undefined && started.settings !== undefined
    return {
      plan: { ...next.plan, listeners, user, workers, metricsListen, logLevel },
      waiting: isOfSettings ? restartFields('sslwrap', started.settings, next.settings) : {},
    }
  }

  #warnOfOldTls(): void {
    for (const { listen, versions, allow } of this.#plan.listeners) {
      if (versions !== 'old') continue
      this.#log.warn('old_tls_enabled', {
        listen: formatSocketAddress(listen),
        networks: allow?.networks.map(formatNetwork).join(' '),
        reason: 'TLS 1.0 and 1.1 are insecure: RFC 8996',
      })
    }
  }

  #warnOfExpiry(): void {
    const certificates = new Map(this.#materials.listeners.flatMap(l => l.certificates).map(c => [c.path, c]))
    for (const certificate of certificates.values()) {
      const days = daysLeft(certificate, Date.now())
      const fields = { path: certificate.path, days, expires: new Date(certificate.expires) }
      if (days < 0) this.#log.error('certificate_expired', fields)
      else if (days <= EXPIRY_WARNING_DAYS) this.#log.warn('certificate_expiring', fields)
    }
  }
}

/** Counts the orders to a worker and its answers, which come in the same order. */
class Orders {
  #sent = 0
  #answered = 0
  #waiting: { readonly n: number; readonly resolve: () => void }[] = []

  /** Counts an order. Fulfilled when the worker has answered the order, or has ended. */
  sent(): Promise<void> {
    this.#sent += 1
    const n = this.#sent
    return new Promise(resolve => {
      this.#waiting.push({ n, resolve })
    })
  }

  answered(): void {
    this.#answered += 1
    this.#settle(this.#answered)
  }

  end(): void {
    this.#settle(Number.POSITIVE_INFINITY)
  }

  #settle(last: number): void {
    for (const { n, resolve } of this.#waiting) if (n <= last) resolve()
    this.#waiting = this.#waiting.filter(({ n }) => n > last)
  }
}
