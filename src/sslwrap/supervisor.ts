import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { setTimeout as pause } from 'node:timers/promises'
import { TemporaryFault, UsageFault } from '../daemon/exit-status.ts'
import { type HeldListener, holdListeners } from '../daemon/held-listener.ts'
import type { RunningDaemon } from '../daemon/lifecycle.ts'
import { createLog, type Log } from '../daemon/log.ts'
import { type Ids, idsOf, isRoot } from '../daemon/privileges.ts'
import { formatSocketAddress } from '../daemon/socket-address.ts'
import { startWorker, type WorkerProcess } from '../daemon/worker-process.ts'
import { daysLeft } from '../tunnel/certificate.ts'
import { writeSelfSigned } from '../tunnel/self-signed.ts'
import { rotateTicketKeys, type TicketKeys } from '../tunnel/ticket-keys.ts'
import { parseFromWorker, type Serve } from './control-messages.ts'
import { watchFiles } from './file-watch.ts'
import { filesOf, type Materials, type Plan, readMaterials, serveOrder } from './plan.ts'
import { servicesOf } from './services.ts'

const TICKET_KEY_LIFE = 12 * 3_600_000
const DAY = 86_400_000
const EXPIRY_WARNING_DAYS = 14
/** A worker that dies is started again after this many milliseconds, each time twice as long, up to the last one. */
const [RESTART_FIRST, RESTART_LAST] = [100, 10_000]
const HEALTHY_AFTER = 60_000
const STOP_GRACE = 2000

/**
 * Starts sslwrap: this process binds the ports, reads the keys and never reads a byte from the network; its workers have no privilege.
 * @throws UsageFault, TemporaryFault
 */
export async function startSupervisor(plan: Plan, script: string): Promise<RunningDaemon> {
  const supervisor = new Supervisor(plan, script)
  return supervisor.start()
}

class Supervisor {
  readonly #plan: Plan
  readonly #script: string
  readonly #log: Log
  readonly #workers = new Set<WorkerProcess>()
  readonly #undo: (() => void)[] = []
  readonly #stop = new AbortController()
  #ids: Ids | undefined
  /** For each listener of the plan a socket for each worker, or one for all. */
  #listeners: readonly (readonly HeldListener[])[] = []
  #materials: Materials
  #ticketKeys: TicketKeys = rotateTicketKeys()

  constructor(plan: Plan, script: string) {
    this.#plan = plan
    this.#script = script
    this.#log = createLog('sslwrap', { level: plan.logLevel })
    if (isRoot()) this.#ids = idsOf(plan.user, 'sslwrap.user')
    else
      this.#log.warn('not-separated', {
        reason: 'not started as root: keys are read and TLS is spoken under one account',
      })
    this.#makeFirstCertificate()
    this.#materials = this.#readMaterials()
  }

  async start(): Promise<RunningDaemon> {
    for (const { listen, versions, allow } of this.#plan.listeners) {
      if (versions !== 'old') continue
      const networks = allow?.networks.map(network => `${network.base}/${network.prefixLength}`).join(' ')
      this.#log.warn('old-tls', {
        listen: formatSocketAddress(listen),
        networks,
        reason: 'TLS 1.0 and 1.1 can be broken: RFC 8996',
      })
    }
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
      watchFiles(filesOf(this.#plan), () => this.#reloadOrKeep('file')),
    )
    return {
      ready: this.#listeners
        .flatMap(([held]) => (held === undefined ? [] : [`listen=${formatSocketAddress(held.address)}`]))
        .join(' '),
      reload: () => this.#reloadOrKeep('signal'),
      stop: () => this.stop(),
    }
  }

  async stop(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    for (const undo of this.#undo) undo()
    for (const listener of this.#listeners.flat()) listener.release()
    const workers = [...this.#workers]
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

  get #order(): Serve {
    return this.#orderWith(this.#materials)
  }

  #orderWith(materials: Materials): Serve {
    const [ids, ticketKeys, workers] = [this.#ids, this.#ticketKeys, this.#count]
    return serveOrder(this.#plan, materials, { ids, ticketKeys, workers })
  }

  /** Reads the files and lets OpenSSL judge them here, so that no worker ever gets what it must refuse. @throws UsageFault */
  #readMaterials(): Materials {
    const materials = readMaterials(this.#plan)
    try {
      servicesOf(this.#orderWith(materials))
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new UsageFault(`sslwrap: the certificates or the cipher list cannot be used: ${why}`, error)
    }
    return materials
  }

  /** Resolves when the worker serves. @throws UsageFault if it refuses what it is given, TemporaryFault if it ends. */
  #startWorker(place: number, delay = RESTART_FIRST): Promise<void> {
    const worker = startWorker(
      this.#script,
      ['--worker'],
      this.#listeners.map(held => held[place % held.length]?.descriptor).filter(descriptor => descriptor !== undefined),
    )
    this.#workers.add(worker)
    const begun = performance.now()
    let serving = false
    const started = new Promise<void>((resolve, reject) => {
      worker.channel.onMessage(message => {
        const answer = parseFromWorker(message)
        if (answer?.type === 'serving') {
          serving = true
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
      const wasHealthy = performance.now() - begun > HEALTHY_AFTER
      if (serving) void this.#restart(worker, place, ending, wasHealthy ? RESTART_FIRST : delay)
    })
    worker.channel.send(this.#order)
    return started
  }

  async #restart(
    worker: WorkerProcess,
    place: number,
    ending: Awaited<WorkerProcess['ended']>,
    delay: number,
  ): Promise<void> {
    const { signal } = this.#stop
    if (signal.aborted) return
    this.#log.error('worker-ended', {
      pid: worker.child.pid,
      code: ending.code ?? undefined,
      signal: ending.signal ?? undefined,
      retry_ms: delay,
    })
    try {
      await pause(delay, undefined, { signal })
      await this.#startWorker(place, Math.min(delay * 2, RESTART_LAST))
    } catch (error) {
      if (signal.aborted || !(error instanceof Error)) return
      this.#log.error('worker-failed', { err: error })
      void this.#restart(worker, place, ending, Math.min(delay * 2, RESTART_LAST))
    }
  }

  #rotate(): void {
    this.#ticketKeys = rotateTicketKeys(this.#ticketKeys)
    for (const { channel } of this.#workers) channel.send(this.#order)
  }

  /** Reads certificates, keys and the password again; if any cannot be used, all stay as they were. */
  #reloadOrKeep(cause: 'signal' | 'file'): void {
    try {
      this.#materials = this.#readMaterials()
    } catch (error) {
      if (!(error instanceof UsageFault)) throw error
      for (const fault of error.faults)
        this.#log.error('reload-failed', { cause, reason: `${fault}; the old files stay in use` })
      return
    }
    this.#rotate()
    this.#log.info('reloaded', { cause })
    this.#warnOfExpiry()
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
      const why = error instanceof Error ? error.message : String(error)
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
