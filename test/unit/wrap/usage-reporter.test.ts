import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterAll, expect, onTestFinished, test, vi } from 'vitest'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { parseDeviceMessages, parseUsageEvent } from '../../../src/wire/usage-event.ts'
import { UsageReporter } from '../../../src/wrap/gate/usage-reporter.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())

test('usage events reach authd, also those from a time without authd, and no report waits for authd', async () => {
  const path = `${directory.path}/usage.sock`
  const ip = parseIpAddress('192.0.2.7')
  if (ip === undefined) throw new Error('no address')
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const reporter = new UsageReporter(path, 20)
  reporter.report({ ip, at: 1, service: 'gate' })
  vi.advanceTimersByTime(200)
  expect(vi.getTimerCount()).toBe(0)
  await eventually('the first attempt has failed, and the next one is due', () => vi.getTimerCount() === 1)
  let received = ''
  const server = createServer(socket =>
    socket.on('data', piece => {
      received += String(piece)
    }),
  )
  server.listen(path)
  await once(server, 'listening')
  reporter.report({ ip, at: 2, service: 'policy' })
  await eventually('octets arrive', () => vi.advanceTimersByTime(20) && received.includes('at=2'))
  expect(received.trim().split('\n').map(parseUsageEvent)).toEqual([
    { ip, at: 1, service: 'gate' },
    { ip, at: 2, service: 'policy' },
  ])
  reporter.report({ ip, at: 3, service: 'gate' })
  reporter.close()
  await eventually('the last report arrives', () => received.includes('at=3'))
  server.close()
})

test('decisions are counted and arrive as one line for each service, also those from a time without authd', async () => {
  const path = `${directory.path}/tallies.sock`
  const [ann, bob] = [parseIpAddress('192.0.2.7'), parseIpAddress('2001:db8::7')]
  const reporter = new UsageReporter(path, 20)
  for (let n = 0; n < 1000; n++) reporter.count('gate', 'refused', ann, 60)
  reporter.count('gate', 'relayed', ann, 61)
  reporter.count('gate', 'refused', bob, 62)
  reporter.count('gate', 'undecided', undefined, 119)
  reporter.count('policy', 'never', ann, 62)
  const lines: string[] = []
  const server = createServer(socket => socket.on('data', piece => lines.push(...String(piece).trim().split('\n'))))
  server.listen(path)
  await once(server, 'listening')
  await eventually('the tallies arrive', () => lines.length === 2)
  expect(lines).toEqual([
    'tally v=1 at=119 service=gate relayed=1 refused=1001 undecided=1 never=0 recent=192.0.2.7,2001:db8::7',
    'tally v=1 at=62 service=policy relayed=0 refused=0 undecided=0 never=1 recent=',
  ])
  reporter.count('gate', 'refused', undefined, 119)
  reporter.close()
  await eventually('the last report arrives', () => lines.length === 3)
  expect(lines[2]).toContain('refused=1 ')
  server.close()
})

test('messages of devices are counted by hour and arrive with the tallies', async () => {
  const path = `${directory.path}/messages.sock`
  const reporter = new UsageReporter(path, 20)
  for (const at of [3598, 3599, 3600]) reporter.countMessage('copier 2', at)
  reporter.countMessage('scanner', 3601)
  const lines: string[] = []
  const server = createServer(socket => socket.on('data', piece => lines.push(...String(piece).trim().split('\n'))))
  server.listen(path)
  await once(server, 'listening')
  await eventually('the counts arrive', () => lines.length === 3)
  expect(lines.map(parseDeviceMessages)).toEqual([
    { at: 3599, device: 'copier 2', count: 2 },
    { at: 3600, device: 'copier 2', count: 1 },
    { at: 3601, device: 'scanner', count: 1 },
  ])
  reporter.close()
  server.close()
})
