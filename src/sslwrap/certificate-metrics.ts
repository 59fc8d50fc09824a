import { Gauge, Registry } from 'prom-client'
import { type MetricsListener, openMetricsListener } from '../process/metrics-listener.ts'
import type { SocketAddress } from '../process/socket-address.ts'
import type { Serve } from './control-messages.ts'

/**
 * Tells Prometheus when each certificate in use ends; `current` is asked at each scrape.
 * @throws UsageFault, TemporaryFault as openMetricsListener.
 */
export function openCertificateMetrics(
  address: SocketAddress,
  current: () => Pick<Serve, 'listeners'>,
): Promise<MetricsListener> {
  const registry = new Registry()
  new Gauge({
    name: 'sslwrap_certificate_expires_timestamp_seconds',
    help: 'When the certificate in use ends, in seconds since 1970.',
    labelNames: ['path', 'name'],
    registers: [registry],
    collect() {
      // A certificate that is not used any more shall not go on warning.
      this.reset()
      for (const { certificates } of current().listeners) {
        for (const { path, names, expires } of certificates) this.set({ path, name: names[0] ?? '' }, expires / 1000)
      }
    },
  })
  return openMetricsListener(registry, address, 'sslwrap.metrics_listen')
}
