import { describe, expect, test } from 'vitest'
import {
  type Applicant,
  CheckCancelled,
  CheckQueue,
  CheckQueueFull,
  sharingNetworks,
} from '../../../src/popup/checkers/check-queue.ts'
import { programQueue } from '../../../src/popup/checkers/make-checker.ts'
import { ClientDisconnect } from '../../../src/popup/client-disconnect.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { ip } from '../../harness/addresses.ts'

const customers = new CustomerNetworks()

function applicant(text: string, isKnown = false): Applicant & { readonly disconnect: ClientDisconnect } {
  return { networks: sharingNetworks(customers.networkOf(ip(text))), isKnown, disconnect: new ClientDisconnect() }
}

/**
 * A queue whose work is ended by the test; `started` has the names of the work in the order of its
 * start.
 */
class TestQueue {
  readonly queue: CheckQueue
  readonly started: string[] = []
  readonly refused: string[] = []
  readonly #running: (() => void)[] = []

  constructor(atOnce: number, mostWaiting = 1000) {
    this.queue = new CheckQueue({ atOnce, mostWaiting })
  }

  add(name: string, from: Applicant): Promise<void> {
    return this.queue
      .run(from, () => {
        this.started.push(name)
        return new Promise<void>(resolve => this.#running.push(resolve))
      })
      .catch((error: unknown) => {
        this.refused.push(`${name}: ${error instanceof Error ? error.name : 'no error'}`)
      })
  }

  /** Ends the running work, one after the other, until none is left. */
  async finish(): Promise<readonly string[]> {
    for (;;) {
      await settled()
      const end = this.#running.shift()
      if (end === undefined) return this.started
      end()
    }
  }
}

/** Fulfilled when all promises that can be settled now are settled. */
const settled = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

test('popup.checker_processes programs check passwords at a time, and a thousand checks wait', async () => {
  const { settings } = parseSettings('[popup]\nchecker_processes = 2', 'test.toml')
  const queue = programQueue(settings)
  let running = 0
  const ends: (() => void)[] = []
  const checks = Array.from({ length: 1003 }, (_, n) =>
    queue
      .run(applicant(`198.51.${n >> 8}.${n & 255}`), () => {
        running += 1
        return new Promise<void>(resolve => ends.push(resolve))
      })
      .then(
        () => 'done',
        (error: unknown) => (error instanceof CheckQueueFull ? 'full' : String(error)),
      ),
  )
  await settled()
  expect(running).toBe(2)
  while (ends.length > 0) {
    for (const end of ends.splice(0)) end()
    await settled()
  }
  const results = await Promise.all(checks)
  expect([results.filter(text => text === 'done').length, results.filter(text => text === 'full').length]).toEqual([
    1002, 1,
  ])
})

describe('CheckQueue', () => {
  test('guesses of unknown logins from one /32 delay a known login, and logins of other wide networks, by less than six checks', async () => {
    const pool = new TestQueue(1)
    const guesses = Array.from({ length: 1500 }, (_, n) =>
      pool.add(`guess ${n}`, applicant(`2001:db8:${(n + 1).toString(16)}::1`)),
    )
    const right = [
      pool.add('IPv4', applicant('198.51.100.7')),
      pool.add('another /32', applicant('2001:db9::1')),
      pool.add('known', applicant('2001:db8:ffff::1', true)),
    ]
    const order = await pool.finish()
    await Promise.all([...guesses, ...right])
    for (const name of ['IPv4', 'another /32', 'known']) expect(order.indexOf(name), name).toBeLessThan(6)
    // Checks above the limit leave the queue, the newest first, and no right one is among them.
    expect(pool.refused.length).toBeGreaterThan(400)
    expect(pool.refused.every(name => name.startsWith('guess'))).toBe(true)
  })

  test('runs at most the permitted number at once, and returns the result of the work', async () => {
    const queue = new CheckQueue({ atOnce: 2, mostWaiting: 100 })
    let [running, most] = [0, 0]
    const work = async (n: number): Promise<number> => {
      running += 1
      most = Math.max(most, running)
      await settled()
      running -= 1
      return n
    }
    const all = Array.from({ length: 20 }, (_, n) => queue.run(applicant(`192.0.2.${n}`), () => work(n)))
    expect(await Promise.all(all)).toEqual(Array.from({ length: 20 }, (_, n) => n))
    expect(most).toBe(2)
    const failed = queue.run(applicant('192.0.2.1'), () => Promise.reject(new Error('broken')))
    await expect(failed).rejects.toThrow('broken')
    // A failed check frees its place too.
    expect(await Promise.all([work(1), queue.run(applicant('192.0.2.1'), () => work(2))])).toEqual([1, 2])
  })

  test('an address that already waits comes after addresses that do not', async () => {
    const checks = new TestQueue(1)
    for (const [name, address] of [
      ['a1', '192.0.2.1'],
      ['a2', '192.0.2.1'],
      ['a3', '192.0.2.1'],
      ['b1', '192.0.2.2'],
      ['b2', '192.0.2.2'],
      ['c1', '192.0.2.3'],
    ] as const) {
      void checks.add(name, applicant(address))
    }
    expect(await checks.finish()).toEqual(['a1', 'a2', 'b1', 'c1', 'a3', 'b2'])
  })

  test('a thousand fresh /64s of one /32 delay a login from elsewhere by one check', async () => {
    const checks = new TestQueue(1)
    for (let n = 0; n < 1000; n++) void checks.add('guess', applicant(`2001:db8:${n.toString(16)}:1::1`))
    void checks.add('from IPv4', applicant('192.0.2.1'))
    void checks.add('from another provider', applicant('2001:4860:1:1::1'))
    expect((await checks.finish()).slice(0, 4)).toEqual(['guess', 'guess', 'from IPv4', 'from another provider'])
  })

  test('the /48s of one provider alternate, and so do the /64s of one /48', async () => {
    const checks = new TestQueue(1)
    for (const [name, address] of [
      ['first', '198.51.100.1'],
      ['a1', '2001:db8:a:1::1'],
      ['a1 again', '2001:db8:a:1::2'],
      ['a2', '2001:db8:a:2::1'],
      ['a3', '2001:db8:a:3::1'],
      ['b1', '2001:db8:b:1::1'],
    ] as const) {
      void checks.add(name, applicant(address))
    }
    expect(await checks.finish()).toEqual(['first', 'a1', 'b1', 'a2', 'a3', 'a1 again'])
  })

  test('known logins go first, but every fourth place is for the others', async () => {
    const checks = new TestQueue(1)
    void checks.add('first', applicant('198.51.100.1'))
    for (let n = 1; n <= 3; n++) void checks.add(`other ${n}`, applicant(`192.0.2.${n}`))
    for (let n = 1; n <= 5; n++) void checks.add(`known ${n}`, applicant(`203.0.113.${n}`, true))
    expect(await checks.finish()).toEqual([
      'first',
      ...['known 1', 'known 2', 'known 3', 'other 1'],
      ...['known 4', 'known 5', 'other 2', 'other 3'],
    ])
  })

  test('if it is full, the network with most checks loses its newest at once, and a check from another network enters', async () => {
    const checks = new TestQueue(1, 4)
    void checks.add('running', applicant('198.51.100.1'))
    for (let n = 1; n <= 6; n++) void checks.add(`a${n}`, applicant(`2001:db8:a:${n}::1`))
    await settled()
    expect(checks.refused).toEqual(['a5: CheckQueueFull', 'a6: CheckQueueFull'])
    void checks.add('b1', applicant('192.0.2.1'))
    await settled()
    expect(checks.refused.slice(2)).toEqual(['a4: CheckQueueFull'])
    expect(checks.queue.waiting).toBe(4)
    expect(await checks.finish()).toEqual(['running', 'a1', 'b1', 'a2', 'a3'])
    expect(new CheckQueueFull().message).toBe('too many password checks are waiting')
  })

  test('a check whose client has disconnected leaves the queue at once and never runs', async () => {
    const checks = new TestQueue(1)
    void checks.add('running', applicant('198.51.100.1'))
    const guessers = Array.from({ length: 300 }, (_, n) => applicant(`192.0.${n >> 8}.${n & 255}`))
    for (const [n, guesser] of guessers.entries()) void checks.add(`guess ${n}`, guesser)
    void checks.add('right', applicant('203.0.113.1'))
    expect(checks.queue.waiting).toBe(301)
    for (const { disconnect } of guessers) disconnect.signal()
    expect(checks.queue.waiting).toBe(1)
    expect(await checks.finish()).toEqual(['running', 'right'])
    expect(checks.refused).toHaveLength(300)
    expect(new Set(checks.refused.map(text => text.split(': ')[1]))).toEqual(new Set(['CheckCancelled']))
  })

  test('a client that disconnected before its request is refused; a disconnect while the work runs changes nothing', async () => {
    const checks = new TestQueue(1)
    const early = applicant('192.0.2.1')
    early.disconnect.signal()
    await expect(checks.queue.run(early, async () => 1)).rejects.toThrow(CheckCancelled)
    const running = applicant('192.0.2.2')
    const waiting = applicant('192.0.2.3')
    void checks.add('running', running)
    void checks.add('waiting', waiting)
    running.disconnect.signal()
    expect(await checks.finish()).toEqual(['running', 'waiting'])
    waiting.disconnect.signal()
    expect(checks.queue.waiting).toBe(0)
    expect(checks.refused).toEqual([])
  })

  test('a check ends once, also if it is ended several times', async () => {
    const queue = new CheckQueue({ atOnce: 1, mostWaiting: 10 })
    const leave = await queue.enter(applicant('192.0.2.1'))
    const others = [2, 3].map(n => queue.enter(applicant(`192.0.2.${n}`)))
    leave()
    leave()
    await others[0]
    expect(queue.waiting).toBe(1)
  })
})

test('sharingNetworks: the widest first; a client behind a translator shares with its IPv4 neighbours', () => {
  const of = (text: string) => applicant(text).networks
  expect(of('192.0.2.1')).toEqual(['192.0.0.0/16', '192.0.2.1/32'])
  expect(of('2001:db8:a:b::1')).toEqual(['2001:db8::/32', '2001:db8:a::/48', '2001:db8:a:b::/64'])
  expect(of('64:ff9b::c000:201')).toEqual(of('192.0.2.1'))
})
