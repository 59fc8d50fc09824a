import { expect, test } from 'vitest'
import { ClientDisconnect } from '../../../src/popup/client-disconnect.ts'
import type { LoginRequest } from '../../../src/popup/login/authenticator.ts'
import { MonitorRequests } from '../../../src/popup/login/monitor-authenticator.ts'
import { upstreamAuthenticator } from '../../../src/popup/login/upstream-authenticator.ts'
import type { ControlChannel } from '../../../src/process/worker-process.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import type { UpstreamServer } from '../../../src/wire/workers/login-process.ts'

const ip = parseIpAddress('192.0.2.7')
if (ip === undefined) throw new TypeError('an address')
const client = { id: sessionId(7, 1), ip, port: 1, localIp: undefined, localPort: 110, tls: false, proxyIp: undefined }
const server: UpstreamServer = { address: { type: 'unix', path: '/nonexistent' }, tls: null, proxyHeader: false }

test('a wrong password that is repeated after a reload has the same proof', async () => {
  const sent: unknown[] = []
  const channel: ControlChannel = {
    send: message => sent.push(message),
    unsent: 0,
    onMessage: () => {},
    onClose: () => {},
    close: () => {},
  }
  const monitor = new MonitorRequests(channel)
  const tryToLogIn = (secret: string) => {
    const request: LoginRequest = { login: 'ann', secret, method: 'pass', client, timestamp: '' }
    // A reload makes another authenticator.
    const result = upstreamAuthenticator(monitor, server)(request, new ClientDisconnect())
    monitor.receive({ type: 'failed', n: sent.length, failure: 'credentials' })
    return result
  }
  for (const secret of ['wrong', 'wrong', 'other']) {
    expect(await tryToLogIn(secret)).toEqual({ outcome: 'failed', failure: 'credentials' })
  }
  const proofs = sent.map(message => JSON.stringify(message).match(/"proof":"(\w+)"/)?.[1])
  expect(proofs[0]).toMatch(/^[0-9a-f]{64}$/)
  expect(proofs[1]).toBe(proofs[0])
  expect(proofs[2]).not.toBe(proofs[0])
})
