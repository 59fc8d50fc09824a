import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type ChildRun, Pings, SupervisedChild } from '../../../src/base/supervised-child.ts'

type FakeRun = ChildRun<number> & { readonly n: number; readonly end: (status: number) => void }

/** A child without a process: the test ends it, and the clock moves with the timers. */
class FakeChild {
  now = 0
  readonly starts: number[] = []
  readonly waits: number[] = []
  readonly ends: number[] = []
  restarts: 'after failure' | 'in order' | 'never' = 'after failure'
  readonly child: SupervisedChild<FakeRun> = new SupervisedChild<FakeRun>({
    launch: () => {
      this.starts.push(this.now)
      const { promise, resolve } = Promise.withResolvers<number>()
      return { n: this.starts.length, ended: promise, end: resolve }
    },
    ended: status => {
      this.ends.push(status)
      if (this.restarts !== 'never') this.waits.push(this.child.restart({ inOrder: this.restarts === 'in order' }))
    },
    clock: () => this.now,
  })

  async pass(ms: number): Promise<void> {
    this.now += ms
    await vi.advanceTimersByTimeAsync(ms)
  }

  /** The running process ends after `ms` milliseconds. */
  async endAfter(ms: number): Promise<void> {
    await this.pass(ms)
    this.child.run?.end(1)
    await this.pass(0)
  }
}

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

describe('SupervisedChild', () => {
  test('the wait grows to 10 s, and is short again after a run of a minute', async () => {
    const fake = new FakeChild()
    fake.child.start()
    for (let count = 0; count < 9; count += 1) {
      await fake.endAfter(59_999)
      await fake.pass(10_000)
    }
    expect(fake.waits).toEqual([100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000])
    await fake.endAfter(60_000)
    expect(fake.waits.at(-1)).toBe(100)
  })

  test('a process that ended in order starts at once, and the count of failures restarts', async () => {
    const fake = new FakeChild()
    fake.child.start()
    await fake.endAfter(50)
    expect(fake.starts).toEqual([0])
    await fake.pass(99)
    expect(fake.child.run).toBeUndefined()
    await fake.pass(1)
    expect(fake.starts).toEqual([0, 150])
    fake.restarts = 'in order'
    await fake.endAfter(10)
    expect(fake.starts).toEqual([0, 150, 160])
    fake.restarts = 'after failure'
    await fake.endAfter(10)
    expect(fake.waits).toEqual([100, 0, 100])
  })

  test('one process runs, and one start is scheduled, for any number of requests', async () => {
    const fake = new FakeChild()
    const first = fake.child.start()
    expect(fake.child.start()).toBe(first)
    await fake.endAfter(1)
    expect(fake.child.start()).toBeUndefined()
    fake.child.restart()
    await fake.pass(10_000)
    expect(fake.starts).toHaveLength(2)
    expect(fake.child.run?.n).toBe(2)
  })

  test('a process that is not restarted stays stopped until it is started', async () => {
    const fake = new FakeChild()
    fake.restarts = 'never'
    fake.child.start()
    await fake.endAfter(1)
    await fake.pass(60_000)
    expect(fake.starts).toHaveLength(1)
    expect(fake.child.start()?.n).toBe(2)
  })

  test('stop takes one step after the other until the process has ended, and no process starts again', async () => {
    const fake = new FakeChild()
    const run = fake.child.start()
    const steps: string[] = []
    let isStopped = false
    const step = (after: number, name: string) => ({ after, act: ({ n }: FakeRun) => steps.push(`${name} ${n}`) })
    const stopped = fake.child.stop(step(0, 'ask'), step(50, 'insist'), step(50, 'kill')).then(() => {
      isStopped = true
    })
    expect(steps).toEqual(['ask 1'])
    await fake.pass(99)
    expect(steps).toEqual(['ask 1', 'insist 1'])
    expect(isStopped).toBe(false)
    run?.end(9)
    await stopped
    expect(fake.ends).toEqual([9])
    await fake.pass(60_000)
    expect(steps).toEqual(['ask 1', 'insist 1'])
    expect(fake.child.start()).toBeUndefined()
    expect(fake.starts).toHaveLength(1)
  })

  test('stop cancels a scheduled start', async () => {
    const fake = new FakeChild()
    fake.child.start()
    await fake.endAfter(1)
    await fake.child.stop({ after: 0, act: () => expect.fail('no process runs') })
    await fake.pass(60_000)
    expect(fake.starts).toHaveLength(1)
  })
})

describe('Pings', () => {
  const start = (isStopped = (): boolean => false) => {
    const events: string[] = []
    const pings = new Pings(
      () => events.push('ping'),
      () => events.push('hung'),
      isStopped,
    )
    return { events, pings }
  }

  test('begin with the first answer; three without an answer mean that the process hangs, reported once', async () => {
    const { events, pings } = start()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(events).toEqual([])
    pings.alive()
    await vi.advanceTimersByTimeAsync(3 * 3_500)
    expect(events).toEqual(['ping', 'ping', 'ping'])
    await vi.advanceTimersByTimeAsync(60_000)
    expect(events).toEqual(['ping', 'ping', 'ping', 'hung'])
  })

  test('a program that does not load within 31.5 s is hung; one that does gets pings', async () => {
    const late = start()
    late.pings.watchLoading()
    await vi.advanceTimersByTimeAsync(9 * 3_500 - 1)
    expect(late.events).toEqual([])
    await vi.advanceTimersByTimeAsync(2)
    expect(late.events).toEqual(['hung'])
    const loaded = start()
    loaded.pings.watchLoading()
    await vi.advanceTimersByTimeAsync(9 * 3_500 - 1)
    loaded.pings.alive()
    await vi.advanceTimersByTimeAsync(2 * 3_500)
    expect(loaded.events).toEqual(['ping', 'ping'])
  })

  test('a process that is stopped before its first message is hung within 15 s, reported once', async () => {
    const { events } = start(() => true)
    await vi.advanceTimersByTimeAsync(3 * 3_500)
    expect(events).toEqual([])
    await vi.advanceTimersByTimeAsync(60_000)
    expect(events).toEqual(['hung'])
  })

  // The moment of the stop within the interval of the pings, in milliseconds.
  test.each([0, 1, 1_750, 3_499])(
    'a process that stops %i ms after a ping is hung within 15 s, before and after its first message',
    async moment => {
      for (const answers of [true, false]) {
        let isStopped = false
        const { events, pings } = start(() => isStopped)
        for (let interval = 0; interval < 3; interval += 1) {
          await vi.advanceTimersByTimeAsync(3_500)
          if (answers) pings.alive()
        }
        await vi.advanceTimersByTimeAsync(moment)
        isStopped = true
        await vi.advanceTimersByTimeAsync(15_000)
        expect(events.at(-1)).toBe('hung')
        pings.end()
      }
    },
  )

  test('a process that is stopped at two of three checks while it loads is not hung', async () => {
    let looks = 0
    const { events } = start(() => ++looks % 3 !== 0)
    await vi.advanceTimersByTimeAsync(120_000)
    expect(events).toEqual([])
    expect(looks).toBeGreaterThan(30)
  })

  test('a process that does not respond is reported within 15 s', async () => {
    const { events, pings } = start()
    pings.alive()
    await vi.advanceTimersByTimeAsync(15_000)
    expect(events).toContain('hung')
  })

  test('an answer restarts the count, and no ping is sent after `end`', async () => {
    const { events, pings } = start()
    pings.alive()
    for (let count = 0; count < 5; count += 1) {
      await vi.advanceTimersByTimeAsync(3 * 3_500)
      pings.alive()
    }
    expect(events).toEqual(Array.from({ length: 15 }, () => 'ping'))
    pings.end()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(events).toHaveLength(15)
  })

  test('an answer that arrived before the third ping was missed counts', async () => {
    const { events, pings } = start()
    pings.alive()
    await vi.advanceTimersByTimeAsync(3 * 3_500)
    vi.advanceTimersByTime(3_499)
    // The tick is due; the answer is read in the same turn of the event loop.
    setImmediate(() => pings.alive())
    await vi.advanceTimersByTimeAsync(1)
    expect(events).not.toContain('hung')
  })
})
