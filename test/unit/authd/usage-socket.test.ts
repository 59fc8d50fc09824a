import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, expect, test } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { UsageSocket } from '../../../src/authd/usage-socket.ts'
import { createLog } from '../../../src/base/log.ts'
import type { UsageRecord } from '../../../src/grants/grant-store.ts'
import type { DeviceMessages, RelayTally } from '../../../src/wire/usage-event.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})
let sockets = 0

const NOW_S = 1_764_000_000

async function open() {
  const uses: UsageRecord[] = []
  const tallies: RelayTally[] = []
  const messages: DeviceMessages[] = []
  const lines: string[] = []
  const counters = new Counters()
  let monotonic = 0
  const path = `${directory.path}/${sockets++}.sock`
  const socket = new UsageSocket({
    path,
    uids: new Set(),
    store: {
      recordUsageEvents: async more => void uses.push(...more),
      recordTallies: async more => void tallies.push(...more),
      recordDeviceMessages: async more => void messages.push(...more),
    },
    counters,
    clock: () => NOW_S * 1000,
    monotonic: () => monotonic,
    log: createLog('authd', { write: line => lines.push(line) }),
  })
  await socket.listen()
  closing.push(() => socket.close())
  const report = async (from: Socket, text: string): Promise<void> => {
    const before = counters.badAnnouncements
    // The last line is invalid. Its counter shows that all lines were read.
    from.write(`${text}end\n`)
    await eventually(
      'octets arrive',
      () => counters.badAnnouncements > before || lines.some(line => line.includes('dropped')),
    )
  }
  return {
    uses,
    tallies,
    messages,
    lines,
    counters,
    report,
    write: () => socket.write(),
    later: (ms: number) => {
      monotonic += ms
    },
    client: async () => {
      const client = connect({ path })
      await once(client, 'connect')
      closing.push(() => void client.destroy())
      return client
    },
  }
}

const use = (ip: string, at = NOW_S, service = 'gate') => `usage v=1 ip=${ip} at=${at} service=${service}\n`
const tally = (service: string, at: number) =>
  `tally v=1 at=${at} service=${service} relayed=1 refused=0 undecided=0 never=0 recent=\n`

test('one usage event is stored for an address, a service and a minute', async () => {
  const { client, report, uses, counters, write } = await open()
  const gate = await client()
  await report(gate, use('192.0.2.7').repeat(500) + use('192.0.2.7', NOW_S, 'policy') + use('192.0.2.8'))
  await report(gate, use('192.0.2.7', NOW_S + 60))
  await write()
  expect(uses.map(({ ip, service, at }) => [ip, service, Number(at) / 1000])).toEqual([
    ['192.0.2.7', 'gate', NOW_S],
    ['192.0.2.7', 'policy', NOW_S],
    ['192.0.2.8', 'gate', NOW_S],
    ['192.0.2.7', 'gate', NOW_S + 60],
  ])
  expect(counters.usageEvents).toBe(503)
})

test('refused and undecided mail of the front is counted as that of the services', async () => {
  const { client, report, tallies, counters, write } = await open()
  await report(await client(), tally('front', NOW_S).replace('refused=0 undecided=0', 'refused=4000 undecided=2'))
  await write()
  expect(tallies).toMatchObject([{ service: 'front', counts: { refused: 4000, undecided: 2 } }])
  expect(counters.decisions).toMatchObject({ refused: 4000, undecided: 2 })
})

test('tallies are accepted for services that exist, and for the last hour', async () => {
  const { client, report, tallies, write } = await open()
  await report(
    await client(),
    tally('gate', NOW_S) + tally('policy', NOW_S - 3600) + tally('anything', NOW_S) + tally('gate', NOW_S - 86_400),
  )
  await write()
  expect(tallies.map(({ service, at }) => [service, at])).toEqual([
    ['gate', NOW_S],
    ['policy', NOW_S - 3600],
  ])
})

test('an account that reports without end writes a hundred rows a second, with one warning a minute', async () => {
  const { client, uses, lines, write, later } = await open()
  const gates = [await client(), await client(), await client()]
  let n = 0
  const many = (count: number) =>
    Array.from({ length: count }, () => use(`2001:db8::${(++n).toString(16).replace(/(.{1,4})(?=(.{4})+$)/g, '$1:')}`))
  for (const gate of gates) {
    for (const line of many(15_000)) gate.write(line)
    await eventually('taken', async () => {
      await write()
      return gate.writableLength === 0
    })
  }
  await eventually('the burst of events is read', async () => {
    await write()
    return uses.length === 20_000
  })
  expect(lines.filter(line => line.includes('event=usage_dropped')).length).toBe(1)
  later(10_000)
  for (const gate of gates) gate.write(many(2_000).join(''))
  await eventually('the events of ten further seconds are read', async () => {
    await write()
    return uses.length >= 21_000
  })
  expect(uses.length).toBe(21_000)
}, 60_000)

test('messages of devices are stored, except those of more than an hour ago', async () => {
  const { messages, report, client, write } = await open()
  const line = (device: string, at: number) => `messages v=1 at=${at} device=${device} count=3\n`
  await report(await client(), line('copier-2', NOW_S) + line('old', NOW_S - 3701) + line('scanner%202', NOW_S - 3600))
  await write()
  expect(messages).toEqual([
    { at: NOW_S, device: 'copier-2', count: 3 },
    { at: NOW_S - 3600, device: 'scanner 2', count: 3 },
  ])
})
