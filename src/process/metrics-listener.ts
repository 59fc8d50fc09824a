import { createServer } from 'node:http'
import { openListener } from './listener.ts'
import { requireLoopback, type SocketAddress } from './socket-address.ts'

/** What a prom-client registry offers. */
export type MetricsRegistry = { readonly contentType: string; metrics(): Promise<string> }

/** Silent connections are looked for each second: sixteen of them would shut Prometheus out. */
const LIMITS = { requestTimeout: 5000, headersTimeout: 5000, connectionsCheckingInterval: 1000, maxHeaderSize: 8192 }

export type MetricsListener = { readonly address: SocketAddress; close(): void }

/**
 * Answers `GET /metrics` for Prometheus.
 * @throws UsageFault if others than this host could ask: numbers of logins are nobody else's
 * business.
 *
 */
export async function openMetricsListener(
  registry: MetricsRegistry,
  address: SocketAddress,
  setting: string,
): Promise<MetricsListener> {
  requireLoopback(address, setting)
  const server = createServer(LIMITS, (request, response) => {
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.writeHead(404).end()
      return
    }
    registry.metrics().then(
      text => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      () => response.writeHead(503).end(), // what could not be counted is asked for again at the next scrape
    )
  })
  server.maxConnections = 16
  const bound = await openListener(server, address, setting)
  return {
    address: bound,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}
