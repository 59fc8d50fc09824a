/** The unprivileged process of sslwrap, which speaks TLS with the clients. */
import { createServer, type Server, type Socket } from 'node:net'
import { messageOf } from '../base/errors.ts'
import { createLog, DailyHints, type Log } from '../base/log.ts'
import { ConnectionLimits, WaitingConnections, watchDescriptors } from '../process/connection-limits.ts'
import { type MetricsListener, openMetricsListener } from '../process/metrics-listener.ts'
import { dropPrivileges } from '../process/privileges.ts'
import { formatSocketAddress, type SocketAddress } from '../process/socket-address.ts'
import { channelToParent, FIRST_LISTENING_DESCRIPTOR, returnFreeMemory } from '../process/worker-process.ts'
import { CustomerNetworks } from '../wire/customer-networks.ts'
import { parseNetwork } from '../wire/ip-address.ts'
import { sessionId } from '../wire/login-event.ts'
import { parseTlsWorkerOrder, refusalOf, type ServeOrder, type TlsWorkerAnswer } from '../wire/workers/tls-worker.ts'
import type { Service } from './services.ts'
import { servicesOf } from './services.ts'
import { type Handshake, serveClient } from './session.ts'

/** Runs a worker until its parent ends, or until the worker has drained. */
export function runWorker(exit: (status: number) => void): void {
  const channel = channelToParent()
  const send = (message: TlsWorkerAnswer): void => channel.send(message)
  const refuse = (error: unknown): void => send(refusalOf(messageOf(error)))
  let worker: Worker | undefined
  channel.onClose(() => exit(0))
  channel.onMessage(message => {
    const order = parseTlsWorkerOrder(message)
    switch (order.type) {
      case 'serve':
        try {
          if (worker === undefined) worker = new Worker(order)
          else worker.replace(order)
        } catch (error) {
          refuse(error)
          return
        }
        worker.openMetrics().then(metrics => send({ type: 'serving', metrics }), refuse)
        break
      case 'drain':
        void (worker?.drain() ?? Promise.resolve()).then(() => exit(0))
        break
    }
  })
}

const customersOf = ({ nat64Prefixes }: ServeOrder): CustomerNetworks =>
  new CustomerNetworks(nat64Prefixes.map(text => parseNetwork(text)).filter(network => network !== undefined))

class Worker {
  readonly #servers: readonly Server[]
  readonly #limits: ConnectionLimits
  readonly #handshakes = new WaitingConnections<Handshake>()
  readonly #hints = new DailyHints()
  readonly #sessions = new Map<Socket, Promise<void>>()
  #log: Log
  #services: readonly Service[]
  #order: ServeOrder
  #metrics: MetricsListener | undefined
  #count = 0

  constructor(order: ServeOrder) {
    returnFreeMemory()
    if (order.ids !== undefined) dropPrivileges(order.ids)
    this.#log = createLog('sslwrap', { level: order.logLevel })
    watchDescriptors(this.#log)
    this.#limits = new ConnectionLimits(order.maxConnections, order.maxPerAddress, customersOf(order))
    this.#services = servicesOf(order)
    this.#order = order
    this.#servers = order.listeners.map((_, index) => this.#listen(index))
  }

  /**
   * Applies new certificates, secrets, settings and limits from the next connection on. Throws,
   * without an effect, if they cannot be used.
   */
  replace(order: ServeOrder): void {
    if (order.listeners.length !== this.#servers.length) throw new TypeError('listeners cannot change while serving')
    this.#services = servicesOf(order)
    this.#order = order
    this.#log = createLog('sslwrap', { level: order.logLevel })
    this.#limits.change(order.maxConnections, order.maxPerAddress, customersOf(order))
  }

  /**
   * Starts the listener for Prometheus, if the order has an address for it. Returns the address.
   * @throws UsageFault, TemporaryFault
   */
  async openMetrics(): Promise<string | undefined> {
    const { metricsListen } = this.#order
    if (metricsListen === undefined) return undefined
    this.#metrics ??= await openCertificateMetrics(metricsListen, () => this.#order)
    return formatSocketAddress(this.#metrics.address)
  }

  /** Stops accepting. Settles when the last session has ended; drainLimit ends all sessions. */
  async drain(): Promise<void> {
    for (const server of this.#servers) server.close()
    this.#metrics?.close()
    const timer = setTimeout(() => {
      for (const socket of this.#sessions.keys()) socket.destroy()
    }, this.#order.drainLimit)
    await Promise.all(this.#sessions.values())
    clearTimeout(timer)
  }

  #listen(index: number): Server {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, raw => {
      const service = this.#services[index]
      if (service === undefined) throw new Error('a listener without a service')
      const session = serveClient(raw, {
        service,
        limits: this.#limits,
        handshakes: this.#handshakes,
        hints: this.#hints,
        log: this.#log,
        nextId: () => sessionId(process.pid, ++this.#count),
      })
      this.#sessions.set(raw, session)
      void session.finally(() => this.#sessions.delete(raw))
    })
    server.on('error', error => this.#log.error('accept_failed', { reason: error }))
    server.listen({ fd: FIRST_LISTENING_DESCRIPTOR + index })
    return server
  }
}

/**
 * Reports the end of each certificate in use to Prometheus. Calls `current` at each scrape.
 * @throws UsageFault, TemporaryFault like openMetricsListener.
 */
export async function openCertificateMetrics(
  address: SocketAddress,
  current: () => Pick<ServeOrder, 'listeners'>,
): Promise<MetricsListener> {
  // Most workers have no such listener, and the library takes longer to load than the worker.
  // A CommonJS module in a bundle has the default export alone.
  const {
    default: { Gauge, Registry },
  } = await import('prom-client')
  const registry = new Registry()
  new Gauge({
    name: 'sslwrap_certificate_expires_timestamp_seconds',
    help: 'When the certificate in use ends, in seconds since 1970.',
    labelNames: ['path', 'name'],
    registers: [registry],
    collect() {
      // Remove certificates that are no longer in use, so that no alert refers to them.
      this.reset()
      for (const { certificates } of current().listeners) {
        for (const { path, names, expires } of certificates) this.set({ path, name: names[0] ?? '' }, expires / 1000)
      }
    },
  })
  return openMetricsListener(registry, address, 'sslwrap.metrics_listen')
}
