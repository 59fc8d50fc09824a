import { readFileSync } from 'node:fs'
import { parser } from '@prometheus-io/lezer-promql'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse as parseYaml } from 'yaml'
import { Counters } from '../../../src/authd/counters.ts'
import { Metrics } from '../../../src/authd/metrics.ts'
import { ALARM_RULES } from '../../../src/grants/alarms.ts'
import type { MetricsListener } from '../../../src/process/metrics-listener.ts'
import { openCertificateMetrics } from '../../../src/sslwrap/worker.ts'
import type { ServeOrder } from '../../../src/wire/workers/tls-worker.ts'

const read = (name: string): string => readFileSync(new URL(`../../../${name}`, import.meta.url), 'utf8')

const RULE = v.strictObject({
  alert: v.string(),
  expr: v.string(),
  for: v.optional(v.pipe(v.string(), v.regex(/^\d+[smh]$/))),
  labels: v.strictObject({ severity: v.picklist(['warning', 'critical']) }),
  annotations: v.strictObject({ summary: v.string() }),
})
const RULES = v.strictObject({ groups: v.array(v.strictObject({ name: v.string(), rules: v.array(RULE) })) })
const BOARD = v.object({
  panels: v.array(
    v.object({
      id: v.number(),
      title: v.string(),
      description: v.string(),
      targets: v.pipe(v.array(v.object({ expr: v.string(), legendFormat: v.string() })), v.nonEmpty()),
    }),
  ),
  templating: v.object({ list: v.array(v.object({ name: v.string(), query: v.unknown() })) }),
})
const rules = v
  .parse(RULES, parseYaml(read('deploy/prometheus/auth-relay.rules.yml')))
  .groups.flatMap(group => group.rules)
const board = v.parse(BOARD, JSON.parse(read('deploy/grafana/auth-relay.json')))

/** A metric of a program: its type, its labels, and the label values of its samples. */
type Exposed = { readonly type: string; readonly labels: Set<string>; readonly pairs: Set<string> }
const exposed = new Map<string, Exposed>()
let listener: MetricsListener

/** A listener of sslwrap with a certificate. */
const CERTIFIED: ServeOrder['listeners'][number] = {
  name: 'pop3s',
  backend: { kind: 'tcp', host: '127.0.0.1', port: 110 },
  preamble: 'ssl',
  protocol: 'pop3',
  versions: 'modern',
  certificates: [
    {
      path: '/etc/tls.crt',
      names: ['mx.example.org'],
      notBefore: 0,
      expires: 2_000_000_000_000,
      cert: '',
      key: '',
      keyType: 'ec',
    },
  ],
}

/** Reads the registries of authd and sslwrap, after an event for each metric with labels. */
beforeAll(async () => {
  const counters = new Counters()
  counters.countIgnored('postfix/smtpd')
  counters.keepLastLine(1000, 'a line', 'tcp')
  const authd = new Metrics({
    counters,
    queue: { length: 0, storeIsDown: false },
    databaseIsUp: () => true,
    countLive: () => Promise.resolve(0),
    countAlarms: () => Promise.resolve(new Map()),
  })
  listener = await openCertificateMetrics({ kind: 'tcp', host: '127.0.0.1', port: 0 }, () => ({
    listeners: [CERTIFIED],
  }))
  const { address } = listener
  if (address.kind !== 'tcp') throw new Error('no TCP address')
  const sslwrap = await fetch(`http://127.0.0.1:${address.port}/metrics`)
  const text = (await authd.registry.metrics()) + (await sslwrap.text())
  for (const [, name = '', type = ''] of text.matchAll(/^# TYPE (\w+) (\w+)$/gm)) {
    const metric: Exposed = { type, labels: new Set(), pairs: new Set() }
    for (const each of type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]) {
      exposed.set(each, metric)
    }
  }
  for (const [, name = '', labels = ''] of text.matchAll(/^(\w+)\{(.*)\} /gm)) {
    for (const [pair, label = ''] of labels.matchAll(/(\w+)="[^"]*"/g)) {
      exposed.get(name)?.labels.add(label)
      exposed.get(name)?.pairs.add(pair)
    }
  }
})
afterAll(() => listener.close())

/** The metrics and labels in a PromQL expression. */
type Named = {
  readonly metrics: readonly { readonly name: string; readonly isRange: boolean; readonly function: string }[]
  readonly labels: readonly string[]
  /** Pairs that are compared for equality. */
  readonly pairs: readonly string[]
}

/** @throws Error with the position if the text is not PromQL. */
function namedIn(expression: string): Named {
  const text = expression.replaceAll('$__rate_interval', '5m').replaceAll('$job', '.*')
  const metrics: { name: string; isRange: boolean; function: string }[] = []
  const labels: string[] = []
  const pairs: string[] = []
  parser.parse(text).iterate({
    enter: node => {
      const part = text.slice(node.from, node.to)
      if (node.type.isError) throw new Error(`no PromQL at "${text.slice(node.from)}" in ${text}`)
      if (node.name === 'LabelName') labels.push(part)
      if (node.name === 'UnquotedLabelMatcher' && /^\w+="/.test(part)) pairs.push(part)
      if (node.name === 'VectorSelector') {
        const isRange = node.node.parent?.name === 'MatrixSelector'
        const call = node.node.parent?.parent?.parent
        const name = /^\w+/.exec(part)?.[0] ?? ''
        metrics.push({ name, isRange, function: call == null ? '' : (/^\w+/.exec(text.slice(call.from))?.[0] ?? '') })
      }
    },
  })
  return { metrics, labels, pairs }
}

/** Labels that Prometheus adds to each sample. */
const OF_PROMETHEUS = ['job', 'instance']

function expectNamed(expression: string, shown: string): void {
  const { metrics, labels, pairs } = namedIn(expression)
  expect(metrics, expression).not.toEqual([])
  for (const { name, isRange, function: call } of metrics) {
    const metric = exposed.get(name)
    expect(metric, `${name} in ${expression}`).toBeDefined()
    const isCounter = metric?.type === 'counter' || metric?.type === 'histogram'
    expect(isRange && /^(rate|increase)$/.test(call), `${name} is a ${metric?.type}: ${expression}`).toBe(isCounter)
    const known = [...OF_PROMETHEUS, ...(name.endsWith('_bucket') ? ['le'] : []), ...(metric?.labels ?? [])]
    const inText = [...shown.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g)].map(([, label = '']) => label)
    for (const label of [...labels, ...inText]) expect(known, `${label} in ${expression}`).toContain(label)
    for (const pair of pairs) expect([...(metric?.pairs ?? [])], expression).toContain(pair)
  }
}

describe('alerting rules for Prometheus', () => {
  test('there are rules, each with a unique name', () => {
    expect(rules.length).toBeGreaterThan(5)
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  })

  test.each(rules)('$alert uses metrics and labels that exist, and counters as rates', ({ expr, annotations }) => {
    expectNamed(expr, annotations.summary)
  })

  test('OPERATING explains each alert', () => {
    const explained = [...read('docs/OPERATING.md').matchAll(/^\| `(AuthRelay\w+)` \|/gm)].map(([, alert]) => alert)
    expect(explained).toEqual(rules.map(({ alert }) => alert))
  })
})

/** `login_spread` is `AuthRelayAlarmLoginSpread`. */
const alertName = (rule: string): string =>
  `AuthRelayAlarm${rule.replace(/(?:^|_)(.)/g, (_, letter: string) => letter.toUpperCase())}`

test('the rules about devices and logins are those of the table, in the same words', () => {
  const ofTable = ALARM_RULES.filter(({ isOfDatabase }) => isOfDatabase).map(({ name, summary, severity }) => ({
    alert: alertName(name),
    expr: `authd_alarms_open{rule="${name}"} > 0`,
    labels: { severity },
    annotations: { summary },
  }))
  expect(rules.filter(({ expr }) => expr.includes('authd_alarms_open'))).toEqual(ofTable)
  const shown = board.panels.find(({ targets }) => targets.some(({ expr }) => expr.includes('authd_alarms_open')))
  expect(shown?.description).toContain('auth-relay alerts')
})

describe('the board for Grafana', () => {
  test.each(board.panels)(
    '$title shows metrics and labels that exist, and counters as rates',
    ({ targets, description }) => {
      expect(description).toMatch(/\.$/)
      for (const { expr, legendFormat } of targets) expectNamed(expr, legendFormat)
    },
  )

  test('each panel has a unique id, and the list of jobs comes from a metric that exists', () => {
    expect(board.panels.length).toBeGreaterThan(10)
    expect(new Set(board.panels.map(({ id }) => id)).size).toBe(board.panels.length)
    const variable = JSON.stringify(board.templating.list.find(({ name }) => name === 'job'))
    const [, metric = ''] = /label_values\((\w+), job\)/.exec(variable) ?? []
    expect(exposed.get(metric)).toBeDefined()
  })
})

test('an unknown metric, label or value, and text that is not PromQL, are found', () => {
  for (const wrong of [
    'authd_no_such_metric',
    'sum by (colour) (rate(authd_events_total[5m]))',
    'rate(authd_gate_decisions_total{verdict="maybe"}[5m])',
    'authd_events_total > 0',
    'rate(authd_queue_length[5m])',
    'sum by source authd_queue_length',
  ]) {
    expect(() => expectNamed(wrong, ''), wrong).toThrow()
  }
  expect(() => expectNamed('authd_queue_length', '{{ $labels.source }}')).toThrow()
})
