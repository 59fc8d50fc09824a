import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { GrantQueue } from '../../../src/authd/grant-queue.ts'
import type { ReportedLogin } from '../../../src/authd/queue/entry.ts'
import { createLog } from '../../../src/base/log.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import type { LoginAnswer } from '../../../src/wire/login-event.ts'
import { FakeStore, held } from './fake-store.ts'

const START = Date.parse('2026-03-05T10:00:00Z')

let store: FakeStore
let counters: Counters
let log: string[]
let queue: GrantQueue
let monotonic = 0
let clockStep = 0
let answers: LoginAnswer[]
let settled: string[]

beforeEach(() => {
  vi.useFakeTimers()
  store = new FakeStore()
  counters = new Counters()
  log = []
  answers = []
  settled = []
  monotonic = 0
  clockStep = 0
  queue = new GrantQueue({
    store,
    counters,
    log: createLog('authd', { level: 'debug', write: line => log.push(line) }),
    clock: () => START + monotonic + clockStep,
    monotonic: () => monotonic,
    commitWait: 800,
  })
})
afterEach(() => {
  queue.close()
  vi.useRealTimers()
})

/** Advances the clock and runs the timers. */
async function pass(milliseconds: number): Promise<void> {
  for (let left = milliseconds; left > 0; left -= 50) {
    const step = Math.min(50, left)
    monotonic += step
    await vi.advanceTimersByTimeAsync(step)
  }
  await vi.advanceTimersByTimeAsync(0)
}

function login(id: string, ip = '192.0.2.7', rest: { user?: string; at?: number } = {}): ReportedLogin {
  const address = parseIpAddress(ip)
  if (address === undefined) throw new Error(ip)
  return {
    event: { id, ip: address, daemon: 'popup', tls: true, method: 'pass', user: rest.user ?? 'ann' },
    source: 'socket',
    answer: answer => answers.push(answer),
    settled: () => settled.push(id),
    ...(rest.at === undefined ? {} : { at: rest.at }),
  }
}
const numbered = (n: number): string => `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`

describe('an address whose row another transaction has locked', () => {
  const locked = Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' })
  const ips = Array.from({ length: 40 }, (_, n) => numbered(n + 1))

  it('does not delay the others of its batch, and is stored when the row is free', async () => {
    store.locked.add(numbered(17))
    for (const [n, ip] of ips.entries()) queue.submit(login(`1.${n}`, ip))
    await pass(50)
    expect(answers.filter(({ verdict }) => verdict === 'committed')).toHaveLength(39)
    expect(answers.filter(({ verdict }) => verdict === 'queued')).toEqual([{ verdict: 'queued', id: '1.16' }])
    expect(queue.length).toBe(1)
    expect(queue.storeIsDown).toBe(false)
    // A further login of the same address waits too; another address does not.
    queue.submit(login('2.1', numbered(17)))
    queue.submit(login('2.2', '192.0.2.200'))
    await pass(50)
    expect(answers.slice(-2)).toEqual([
      { verdict: 'queued', id: '2.1' },
      { verdict: 'committed', id: '2.2', until: store.until },
    ])
    store.locked.clear()
    await pass(1100)
    expect(queue.length).toBe(0)
    // Only the newest login of an address is kept.
    expect(store.stored.filter(({ event }) => event.ip === numbered(17)).map(({ event }) => event.id)).toEqual(['2.1'])
  })

  it('is tried again separately from the others while it is locked', async () => {
    store.locked.add(numbered(1))
    queue.submit(login('1.1', numbered(1)))
    for (let n = 0; n < 5; n++) {
      await pass(1000)
      queue.submit(login(`2.${n}`, numbered(n + 2)))
      await pass(50)
      expect(answers.at(-1)).toMatchObject({ verdict: 'committed', id: `2.${n}` })
    }
    expect(queue.length).toBe(1)
  })

  it('is kept when the store becomes unavailable, and stored afterwards', async () => {
    store.locked.add(numbered(1))
    queue.submit(login('1.1', numbered(1)))
    await pass(50)
    store.failure = new Error('no database')
    queue.submit(login('1.2', numbered(2)))
    await pass(1500)
    expect(queue.length).toBe(2)
    store.failure = undefined
    store.locked.clear()
    await pass(10_000)
    expect(queue.length).toBe(0)
    expect(store.stored.map(({ event }) => event.id).sort()).toEqual(['1.1', '1.2'])
  })

  it('does not take the place of a newer login that came when the store was unavailable', async () => {
    store.locked.add(numbered(1))
    queue.submit(login('1.1', numbered(1)))
    await pass(50)
    store.failure = new Error('no database')
    queue.submit(login('2.1', numbered(2)))
    await pass(50)
    queue.submit(login('1.2', numbered(1)))
    await pass(1000)
    store.failure = undefined
    store.locked.clear()
    await pass(3000)
    expect(queue.length).toBe(0)
    expect(store.stored.filter(({ event }) => event.ip === numbered(1)).map(({ event }) => event.id)).toEqual(['1.2'])
    expect(settled).toEqual(['1.1', '2.1', '1.2'])
  })

  it('among too many of them means that the store is unavailable', async () => {
    store.failure = locked
    for (let n = 0; n < 3000; n++) queue.submit(login(`1.${n}`, numbered(n + 1)))
    await pass(100)
    expect(queue.storeIsDown).toBe(true)
    expect(queue.length).toBe(3000)
    store.failure = undefined
    await pass(5000)
    expect(queue.length).toBe(0)
    expect(store.stored).toHaveLength(3000)
  })
})

describe('locked rows among 1,000 addresses, when each refusal takes a second', () => {
  const COUNT = 1000
  const all = Array.from({ length: COUNT }, (_, n) => numbered(n))
  const isStored = (): ReadonlySet<string> => new Set(store.stored.map(({ event }) => event.ip))

  it.each([
    ['the first', [0]],
    ['the last', [999]],
    ['one in the middle', [500]],
    ['the first and the last', [0, 999]],
    ['two neighbours', [499, 500]],
    ['ten', Array.from({ length: 10 }, (_, n) => n * 100 + n)],
    ['forty, all at the beginning', Array.from({ length: 40 }, (_, n) => n)],
  ])('%s: every other address is stored within five minutes', async (_, places) => {
    store.waitForLock = () => {
      monotonic += 1000
    }
    const locked = new Set(places.map(numbered))
    for (const ip of locked) store.locked.add(ip)
    for (const [n, ip] of all.entries()) queue.submit(login(`1.${n}`, ip))
    for (let seconds = 0; seconds < 300 && isStored().size < COUNT - locked.size; seconds++) await pass(1000)
    expect(monotonic).toBeLessThan(300_000)
    expect(all.filter(ip => !isStored().has(ip))).toEqual([...locked])
    // Every other login was stored once.
    expect(store.stored).toHaveLength(COUNT - locked.size)
    expect(queue.length).toBe(locked.size)
    store.locked.clear()
    await pass(60_000)
    expect(isStored().size).toBe(COUNT)
    expect(store.stored).toHaveLength(COUNT)
    expect(settled).toHaveLength(COUNT)
    expect(queue.length).toBe(0)
  })

  it.each([
    ['the first', [0]],
    ['the first and the last', [0, 999]],
  ])('%s: the store does not count as unavailable, and a new login is stored meanwhile', async (_, places) => {
    for (const place of places) store.locked.add(numbered(place))
    store.waitForLock = () => {
      monotonic += 1000
    }
    for (const [n, ip] of all.entries()) queue.submit(login(`1.${n}`, ip))
    await pass(100)
    queue.submit(login('2.1', '192.0.2.200'))
    await pass(5000)
    expect(log.filter(line => line.includes('store_unavailable'))).toEqual([])
    expect(isStored().has('192.0.2.200')).toBe(true)
  })

  it('logins of one address are stored in order of arrival', async () => {
    store.waitForLock = () => {
      monotonic += 1000
    }
    store.locked.add(numbered(0))
    // The two logins of each address are in different halves of the batch.
    const half = all.slice(0, COUNT / 2)
    for (const [n, ip] of [...half, ...half].entries()) queue.submit(login(`${n}`, ip))
    await pass(30_000)
    const newest = new Map(store.stored.map(({ event }) => [String(event.ip), event.id]))
    expect(half.filter((ip, n) => n > 0 && newest.get(ip) !== `${n + half.length}`)).toEqual([])
  })
})

describe('GrantQueue', () => {
  it('logs each reason of an outage once, and at most five', async () => {
    const reasons = (): readonly (string | undefined)[] =>
      log.filter(line => line.includes('store_unavailable')).map(line => /reason="?([^"]*?)"? waiting/.exec(line)?.[1])
    store.failure = new Error('the deadline passed')
    queue.submit(login('1.1'))
    await pass(100)
    store.failure = new Error('no standby streams')
    await pass(10_000)
    expect(reasons()).toEqual(['the deadline passed', 'no standby streams'])
    for (let n = 0; n < 10; n++) {
      store.failure = new Error(`reason ${n}`)
      await pass(30_000)
    }
    expect(reasons()).toHaveLength(5)
    store.failure = undefined
    await pass(30_000)
    store.failure = new Error('no standby streams')
    queue.submit(login('1.2'))
    await pass(100)
    expect(reasons().slice(5)).toEqual(['no standby streams'])
  })

  it('answers `committed` after the commit, with the end of the grant', async () => {
    const commit = held()
    store.gate = commit.promise
    queue.submit(login('1.1'))
    await pass(10)
    expect(answers).toEqual([])
    commit.release()
    await pass(1)
    expect(answers).toEqual([{ verdict: 'committed', id: '1.1', until: store.until }])
    expect(store.stored).toEqual([{ event: login('1.1').event, at: null }])
    expect(settled).toEqual(['1.1'])
    expect(log).toEqual([
      // popup logs it at level info.
      `authd: level=debug event=grant_stored id=1.1 ip=192.0.2.7 user=ann daemon=popup source=socket until=${store.until}\n`,
    ])
  })

  it('sends the logins that arrive during a commit together, when the commit ends', async () => {
    const commit = held()
    store.gate = commit.promise
    queue.submit(login('1.1'))
    await pass(1)
    for (let n = 2; n <= 9; n++) {
      queue.submit(login(`1.${n}`, numbered(n)))
      await pass(1)
    }
    commit.release()
    await pass(1)
    expect(store.batches).toEqual([1, 8])
    expect(answers.map(({ id }) => id)).toEqual(Array.from({ length: 9 }, (_, n) => `1.${n + 1}`))
  })

  it('starts a second commit beside one that takes more than 10 ms, and no third', async () => {
    const [slow, second] = [held(), held()]
    store.gate = slow.promise
    queue.submit(login('1.1'))
    await pass(1)
    store.gate = second.promise
    queue.submit(login('1.2', '192.0.2.8'))
    await pass(9)
    expect(store.begun).toEqual([1])
    await pass(1)
    expect(store.begun).toEqual([1, 1])
    queue.submit(login('1.3', '192.0.2.9'))
    await pass(100)
    expect(store.begun).toEqual([1, 1])
    second.release()
    await pass(1)
    expect(answers.map(({ id }) => id)).toEqual(['1.2'])
    store.gate = Promise.resolve()
    await pass(10)
    expect(store.begun).toEqual([1, 1, 1])
    slow.release()
    await pass(1)
    expect(answers.map(({ id }) => id)).toEqual(['1.2', '1.3', '1.1'])
  })

  it('starts a second commit at once for 64 logins', async () => {
    store.gate = held().promise
    queue.submit(login('1.1'))
    await pass(1)
    for (let n = 2; n <= 65; n++) queue.submit(login(`1.${n}`, numbered(n)))
    await pass(0)
    expect(store.begun).toEqual([1, 64])
  })

  it('if two commits fail out of order, the newest login of an address is kept', async () => {
    const [first, second] = [held(), held()]
    store.gate = first.promise
    queue.submit(login('1.1', '192.0.2.7'))
    await pass(1)
    store.gate = second.promise
    queue.submit(login('1.2', '192.0.2.7'))
    queue.submit(login('1.3', '192.0.2.8'))
    await pass(10)
    store.failure = new Error('no server')
    second.release()
    await pass(1)
    first.release()
    await pass(1)
    expect(queue.length).toBe(2)
    expect(settled).toEqual(['1.1'])
    store.failure = undefined
    store.gate = Promise.resolve()
    await pass(2500)
    expect(store.stored.map(({ event }) => event.id)).toEqual(['1.2', '1.3'])
  })

  it('if one of two commits fails and the other succeeds, the failed logins are sent again at once', async () => {
    const [first, second] = [held(), held()]
    store.gate = first.promise
    queue.submit(login('1.1', '192.0.2.7'))
    await pass(1)
    store.gate = second.promise
    queue.submit(login('1.2', '192.0.2.8'))
    await pass(10)
    store.failure = new Error('no server')
    first.release()
    await pass(1)
    expect(queue.storeIsDown).toBe(true)
    store.failure = undefined
    second.release()
    await pass(1)
    expect(queue.storeIsDown).toBe(false)
    expect(store.stored.map(({ event }) => event.id)).toEqual(['1.2', '1.1'])
    expect(answers.map(({ id, verdict }) => `${id} ${verdict}`)).toEqual(['1.1 queued', '1.2 committed'])
  })

  it('passes on a refusal with its reason', async () => {
    queue.submit(login('1.1', '192.0.2.7', { user: 'refused' }))
    await pass(1)
    expect(answers).toEqual([{ verdict: 'refused', id: '1.1', reason: 'blocked' }])
    expect(log[0]).toContain('event=grant_refused id=1.1 ip=192.0.2.7')
    expect(log[0]).toContain('reason=blocked')
  })

  it('answers `queued` once if the commit takes longer than commit_wait, and stores the login nevertheless', async () => {
    const commit = held()
    store.gate = commit.promise
    for (const n of [1, 2, 3]) {
      queue.submit(login(`1.${n}`, numbered(n)))
      await pass(1)
    }
    await pass(690)
    expect(answers).toEqual([])
    await pass(400)
    expect(answers.map(({ verdict }) => verdict)).toEqual(['queued', 'queued', 'queued'])
    commit.release()
    await pass(1)
    expect(answers).toHaveLength(3)
    // The first login is sent at once, the second and the third 10 ms later, with the database's
    // time.
    expect(store.stored.map(({ at }) => at)).toEqual([null, null, null])
  })

  it('keeps the newest login of each address while the store is unavailable, and stores them with their own times', async () => {
    store.failure = new Error('no server')
    queue.submit(login('1.1'))
    await pass(1)
    expect(answers).toEqual([{ verdict: 'queued', id: '1.1' }])
    queue.submit(login('1.2', '192.0.2.8'))
    await pass(200)
    queue.submit(login('1.3', '192.0.2.7', { user: 'bob' }))
    expect(answers.map(({ id, verdict }) => `${id} ${verdict}`)).toEqual(['1.1 queued', '1.2 queued', '1.3 queued'])
    expect(settled).toEqual(['1.1'])
    expect(queue.length).toBe(2)
    // The clock of the host is set forward by an hour meanwhile, which changes no login's time.
    clockStep = 3_600_000
    await pass(500)
    store.failure = undefined
    await pass(2500)
    expect(store.stored.map(({ event, at }) => [event.id, at?.getTime()])).toEqual([
      ['1.2', START + 1 + clockStep],
      ['1.3', START + 201 + clockStep],
    ])
    expect(queue.length).toBe(0)
    expect(queue.storeIsDown).toBe(false)
    expect(answers).toHaveLength(3)
    expect(log.filter(line => line.includes('event=store_'))).toHaveLength(2)
  })

  it('tries again after 1, 2, 4 … at most 30 seconds, and at once when the store is reported as available', async () => {
    let tries = 0
    store.record = async () => {
      tries += 1
      throw new Error('no server')
    }
    queue.submit(login('1.1'))
    await pass(1)
    const at = async (seconds: number): Promise<number> => {
      await pass(seconds * 1000)
      return tries
    }
    expect(await at(0.9)).toBe(1)
    expect(await at(0.2)).toBe(2)
    expect(await at(1.8)).toBe(2)
    expect(await at(0.3)).toBe(3)
    await pass(120_000)
    const before = tries
    expect(await at(29)).toBeLessThanOrEqual(before + 1)
    queue.storeIsBack()
    await pass(1)
    expect(tries).toBe(before + (tries - before))
    expect(tries).toBeGreaterThan(before)
  })

  it('keeps 10,000 addresses; the oldest is dropped first, with one log line', async () => {
    store.failure = new Error('no server')
    for (let n = 0; n < 10_500; n++) queue.submit(login(`1.${n}`, numbered(n)))
    await pass(10)
    expect(queue.length).toBe(10_000)
    expect(answers).toHaveLength(10_500)
    expect(log.filter(line => line.includes('event=logins_dropped'))).toHaveLength(1)
    expect(counters.events.get('socket')?.get('dropped')).toBe(500)
    expect(settled.slice(0, 2)).toEqual(['1.0', '1.1'])
    store.failure = undefined
    await pass(2000)
    expect(store.stored).toHaveLength(10_000)
    expect(store.stored[0]?.event.id).toBe('1.500')
  })

  it('limits the logins that wait for a slow commit, and pauses sources that can wait', {
    timeout: 30_000,
  }, async () => {
    const commit = held()
    store.gate = commit.promise
    for (let n = 0; n < 6000; n++) queue.submit(login(`1.${n}`, numbered(n)))
    expect(queue.hasRoom).toBe(false)
    const room = queue.room()
    for (let n = 6000; n < 130_000; n++) queue.submit(login(`1.${n}`, numbered(n)))
    expect(queue.length).toBeLessThanOrEqual(112_000)
    commit.release()
    await pass(1)
    await room
    expect(queue.hasRoom).toBe(true)
    expect(queue.length).toBe(0)
  })

  it('refuses a login that the database can never store, without its neighbours', async () => {
    store.poison = 'poison'
    const commit = held()
    store.gate = commit.promise
    for (let n = 2; n < 12; n++) queue.submit(login(`1.${n}`, numbered(n), { user: n === 7 ? 'poison' : 'ann' }))
    commit.release()
    await pass(5)
    expect(store.stored).toHaveLength(9)
    expect(answers.find(({ id }) => id === '1.7')).toEqual({ verdict: 'refused', id: '1.7', reason: 'unstorable' })
    expect(queue.storeIsDown).toBe(false)
  })

  it('a missing table is an outage: logins are kept until the table exists', async () => {
    store.failure = Object.assign(new Error('relation "grants" does not exist'), { code: '42P01', temporary: false })
    queue.submit(login('1.1'))
    await pass(1)
    expect(queue.storeIsDown).toBe(true)
    store.failure = undefined
    await pass(2000)
    expect(store.stored).toHaveLength(1)
  })

  it('accepts a time in the past from its source, never one in the future', async () => {
    queue.submit(login('1.1', '192.0.2.7', { at: START - 60_000 }))
    await pass(1)
    queue.submit(login('1.2', '192.0.2.8', { at: START + 60_000 }))
    await pass(1)
    expect(store.stored.map(({ at }) => at?.getTime())).toEqual([START - 60_000, START + 1])
  })

  it('drains: stores the remaining logins, and stops at the time limit', async () => {
    store.failure = new Error('no server')
    queue.submit(login('1.1'))
    await pass(20_000)
    const inVain = queue.drain(5000)
    await pass(5100)
    expect(await inVain).toBe(1)
    const drained = queue.drain(5000)
    await pass(100)
    store.failure = undefined
    await pass(400)
    expect(await drained).toBe(0)
    expect(store.stored).toHaveLength(1)
  })

  it('drains beyond the time limit while logins are being stored, up to a second limit', async () => {
    const inSeconds = (seconds: number) => new Promise<void>(resolve => setTimeout(resolve, seconds * 1000))
    store.gate = inSeconds(4)
    for (let n = 0; n < 5000; n++) queue.submit(login(`1.${n}`))
    const longer = queue.drain(5000, 30_000)
    const shorter = queue.drain(5000, 6000)
    await pass(1000)
    store.gate = inSeconds(7)
    await pass(4000)
    expect(store.stored).toHaveLength(2000)
    store.gate = inSeconds(5)
    await pass(2000)
    expect(await shorter).toBe(3000)
    await pass(4000)
    expect(await longer).toBe(0)
    expect(store.stored).toHaveLength(5000)
  })

  /** Sends logins at an interval in milliseconds; returns the number of transactions. */
  async function transactionsOf(logins: number, interval: number): Promise<number> {
    const before = counters.commits
    for (let n = 0; n < logins; n += 1) {
      queue.submit(login(`9.${n}`, numbered(n)))
      monotonic += interval
      await vi.advanceTimersByTimeAsync(interval)
    }
    await pass(10)
    return counters.commits - before
  }

  it('lets logins share transactions under load: fewer than half as many at 500 a second', async () => {
    await transactionsOf(100, 2)
    expect(await transactionsOf(500, 2)).toBeLessThan(260)
    expect(answers).toHaveLength(600)
  })

  it('lets a login wait 3 ms at most for others', async () => {
    await transactionsOf(100, 1)
    answers.length = 0
    queue.submit(login('1.1'))
    monotonic += 2
    await vi.advanceTimersByTimeAsync(2)
    expect(answers).toEqual([])
    monotonic += 1
    await vi.advanceTimersByTimeAsync(1)
    expect(answers).toEqual([{ verdict: 'committed', id: '1.1', until: store.until }])
  })

  it('delays no login for others if few come, or if a full batch is there', async () => {
    expect(await transactionsOf(50, 20)).toBe(50)
    await transactionsOf(100, 1)
    answers.length = 0
    for (let n = 0; n < 40; n += 1) queue.submit(login(`8.${n}`, numbered(n)))
    await vi.advanceTimersByTimeAsync(0)
    expect(answers).toHaveLength(40)
  })
})
