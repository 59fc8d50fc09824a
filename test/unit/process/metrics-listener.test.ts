import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { openMetricsListener } from '../../../src/process/metrics-listener.ts'
import { eventually } from '../../harness/eventually.ts'

test('silent connections block Prometheus for a few seconds at most', async () => {
  const registry = { contentType: 'text/plain', metrics: async () => 'up 1\n' }
  const listener = await openMetricsListener(registry, { kind: 'tcp', host: '127.0.0.1', port: 0 }, 'test')
  if (listener.address.kind !== 'tcp') throw new Error('no port')
  const { port } = listener.address
  const silent = Array.from({ length: 32 }, () => connect(port, '127.0.0.1').on('error', () => {}))
  try {
    await Promise.all(silent.slice(0, 16).map(socket => once(socket, 'connect')))
    const answer = await eventually(
      'answered',
      async () => (await fetch(`http://127.0.0.1:${port}/metrics`).catch(() => undefined))?.text(),
      20_000,
    )
    expect(answer).toBe('up 1\n')
  } finally {
    for (const socket of silent) socket.destroy()
    listener.close()
  }
}, 30_000)
