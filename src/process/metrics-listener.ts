/** The listener for Prometheus. */
import { createServer } from 'node:http'
import { openListener } from './listener.ts'
import { requireLoopback, type SocketAddress } from './socket-address.ts'

/** The part of a prom-client registry that the listener uses. */
export type MetricsRegistry = { readonly contentType: string; metrics(): Promise<string> }

/** Limits for silent connections, of which sixteen would keep Prometheus from connecting. */
const LIMITS = { requestTimeout: 5000, headersTimeout: 5000, connectionsCheckingInterval: 1000, maxHeaderSize: 8192 }

export type MetricsListener = { readonly address: SocketAddress; close(): void }

/**
 * Answers `GET /metrics` for Prometheus.
 * @throws UsageFault if other hosts could connect, because the numbers are confidential.
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
      () => response.writeHead(503).end(), // Prometheus scrapes again.
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
