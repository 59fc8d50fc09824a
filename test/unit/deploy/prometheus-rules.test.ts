import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { Metrics } from '../../../src/authd/metrics.ts'
import type { MetricsListener } from '../../../src/process/metrics-listener.ts'
import { openCertificateMetrics } from '../../../src/sslwrap/certificate-metrics.ts'

const read = (name: string): string => readFileSync(new URL(`../../../${name}`, import.meta.url), 'utf8')
const RULES = read('deploy/prometheus/auth-relay.rules.yml')
const rules = [...RULES.matchAll(/- alert: (\w+)\n +expr: (.*)\n/g)].map(([, alert = '', expr = '']) => ({
  alert,
  expr,
}))

let listener: MetricsListener
/** What Prometheus reads from authd and sslwrap. */
let exposed = ''
beforeAll(async () => {
  const authd = new Metrics({
    counters: new Counters(),
    queue: { length: 0, storeIsDown: false },
    databaseIsUp: () => true,
    countLive: () => Promise.resolve(0),
  })
  listener = await openCertificateMetrics({ type: 'tcp', host: '127.0.0.1', port: 0 }, () => ({
    listeners: [],
  }))
  const { address } = listener
  if (address.type !== 'tcp') throw new Error('no TCP address')
  const sslwrap = await fetch(`http://127.0.0.1:${address.port}/metrics`)
  exposed = (await authd.registry.metrics()) + (await sslwrap.text())
})
afterAll(() => listener.close())

test('every alert is found', () => {
  expect(rules.length).toBe(RULES.match(/- alert:/g)?.length)
  expect(rules.length).toBeGreaterThan(5)
})

test.each(rules)('$alert watches metrics and labels that exist', ({ expr }) => {
  const metrics = [...expr.matchAll(/\b(?:authd|sslwrap)_[a-z_]+\b(\{[^}]*\})?/g)]
  expect(metrics).not.toEqual([])
  for (const [metric] of metrics) {
    const [name = ''] = metric.split('{')
    expect(exposed).toContain(`# TYPE ${name} `)
    if (metric !== name) expect(exposed).toContain(`\n${metric} `)
  }
})

test('counters are watched as rates, gauges as they are', () => {
  for (const { expr } of rules) {
    for (const [metric] of expr.matchAll(/\b(?:authd|sslwrap)_[a-z_]+\b/g)) {
      const isCounter = exposed.includes(`# TYPE ${metric} counter`)
      expect(expr.includes(`increase(${metric}`), expr).toBe(isCounter)
    }
  }
})

test('OPERATING explains each alert', () => {
  const explained = [...read('docs/OPERATING.md').matchAll(/^\| `(AuthRelay\w+)` \|/gm)].map(([, alert]) => alert)
  expect(explained).toEqual(rules.map(({ alert }) => alert))
})
