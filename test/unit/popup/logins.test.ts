import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { CheckQueue } from '../../../src/popup/checkers/check-queue.ts'
import {
  type Checker,
  type CheckRequest,
  type CheckResult,
  no,
  temporary,
} from '../../../src/popup/checkers/checker.ts'
import { Announcer } from '../../../src/popup/monitor/announcer.ts'
import { FailureDelays, LoginIntervals } from '../../../src/popup/monitor/login-delays.ts'
import type { LoginProcess } from '../../../src/popup/monitor/login-processes.ts'
import { Logins, type LoginsParts } from '../../../src/popup/monitor/logins.ts'
import { MaildropWorkers } from '../../../src/popup/monitor/maildrop-workers.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { type FromLoginMessage, parseFromLogin, type ToLoginMessage } from '../../../src/wire/workers/login-process.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const LIMIT_MS = 60_000
const customers = new CustomerNetworks()

/** Text that a client types, as the login process reports it: one character for each octet. */
const typed = (text: string): string => Buffer.from(text, 'utf8').toString('latin1')

/** The monitor's part that handles logins, with a clock that the test sets. */
class Monitor {
  readonly lines: string[] = []
  readonly answers: ToLoginMessage[] = []
  readonly logins: Logins
  readonly process: LoginProcess = { index: 0, send: message => this.answers.push(message) }
  #n = 0

  constructor(authenticator: LoginsParts['authenticator'], delays: readonly number[] = [2000, 4000, 8000, 15_000]) {
    const clock = (): number => Date.now()
    const log = createLog('popup', { level: 'debug', write: line => this.lines.push(line) })
    this.logins = new Logins({
      authenticator,
      delays: new FailureDelays(delays, clock, customers),
      customers: () => customers,
      intervals: new LoginIntervals(0, clock),
      announcer: new Announcer(undefined, () => undefined, false, log),
      checkTimeout: () => LIMIT_MS,
      log,
    })
  }

  say(message: FromLoginMessage, process = this.process): void {
    const parsed = parseFromLogin(message)
    if (parsed === undefined) throw new TypeError('the test sent an invalid message')
    this.logins.handle(process, parsed)
  }

  verify(login: string, ip = '192.0.2.1', secret = 'secret', process = this.process): number {
    this.#n += 1
    const attempt = { id: `7f3a.${this.#n}`, login: typed(login), method: 'pass', ip, tls: false } as const
    this.say({ type: 'verify', n: this.#n, ...attempt, secret, timestamp: '<1.1@mx>' }, process)
    return this.#n
  }

  attempt(login: string, ip: string): number {
    this.#n += 1
    const proof = this.#n.toString(16).padStart(64, '0')
    const attempt = { id: `7f3a.${this.#n}`, login: typed(login), method: 'pass', ip, tls: false } as const
    this.say({ type: 'attempt', n: this.#n, ...attempt, proof })
    return this.#n
  }

  answerTo = (n: number): ToLoginMessage | undefined => this.answers.find(answer => 'n' in answer && answer.n === n)
}

const pass = (milliseconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(milliseconds)

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

describe('with an upstream server that decides', () => {
  const upstream = (atOnce = 64): Monitor => {
    const queue = new CheckQueue({ atOnce, mostWaiting: 3 })
    return new Monitor({ kind: 'upstream', checks: () => queue })
  }
  /** Seconds until the login may be tried. */
  const waitOf = async (monitor: Monitor, n: number): Promise<number> => {
    for (let seconds = 0; seconds <= 20; seconds += 1) {
      await pass(0)
      if (monitor.answerTo(n) !== undefined) return seconds
      await pass(1000)
    }
    throw new Error('the login was not checked within 20 s')
  }

  test.each(['jurgen', 'jürgen', 'ÄÖÜ', '日本'])(
    'delays grow for %s with failures from different addresses',
    async login => {
      const monitor = upstream()
      const waits: number[] = []
      for (let i = 1; i <= 6; i++) {
        const n = monitor.attempt(login, `192.0.2.${i}`)
        waits.push(await waitOf(monitor, n))
        monitor.say({ type: 'outcome', n, outcome: 'no' })
        await pass(0)
        expect(monitor.answers.at(-1)).toEqual({ type: 'failed', n, failure: 'credentials' })
      }
      expect(waits).toEqual([0, 2, 4, 8, 15, 15])
    },
  )

  test('a login that succeeded from its address is known there, in UTF-8 too', async () => {
    const monitor = upstream()
    const right = monitor.attempt('jürgen', '192.0.2.1')
    await pass(0)
    monitor.say({ type: 'outcome', n: right, outcome: 'yes' })
    await pass(0)
    expect(monitor.answers.at(-1)).toEqual({ type: 'announced', n: right })
    const wrong = monitor.attempt('jürgen', '192.0.2.9')
    await pass(0)
    monitor.say({ type: 'outcome', n: wrong, outcome: 'no' })
    await pass(0)
    expect(await waitOf(monitor, monitor.attempt('jürgen', '192.0.2.1'))).toBe(0)
    expect(await waitOf(monitor, monitor.attempt('jürgen', '192.0.2.9'))).toBe(2)
  })

  test('a client that disconnects while it waits is never admitted', async () => {
    const monitor = upstream()
    const wrong = monitor.attempt('ann', '192.0.2.1')
    await pass(0)
    monitor.say({ type: 'outcome', n: wrong, outcome: 'no' })
    await pass(0)
    const cancelled = monitor.attempt('ann', '192.0.2.1')
    monitor.say({ type: 'cancel', n: cancelled })
    await pass(20_000)
    expect(monitor.answerTo(cancelled)).toBeUndefined()
  })

  test('a client that disconnects before the answer of the server counts as a failure', async () => {
    const monitor = upstream()
    const waits: number[] = []
    for (let i = 1; i <= 4; i++) {
      const n = monitor.attempt('ann', `192.0.2.${i}`)
      waits.push(await waitOf(monitor, n))
      monitor.say({ type: 'cancel', n })
      await pass(0)
      expect(monitor.lines.at(-1)).toContain('the client disconnected before the answer of the server behind')
    }
    expect(waits).toEqual([0, 2, 4, 8])
  })

  test('the end of a login process is no failure of its clients', async () => {
    const monitor = upstream()
    for (let i = 1; i <= 4; i++) monitor.attempt('ann', `192.0.2.${i}`)
    await pass(0)
    monitor.logins.processEnded(monitor.process)
    await pass(0)
    expect(await waitOf(monitor, monitor.attempt('ann', '192.0.2.9'))).toBe(0)
  })

  test('queries of the server are limited, and wait in the queue of checks', async () => {
    const monitor = upstream(2)
    const attempts = [1, 2, 3, 4].map(i => monitor.attempt(`login ${i}`, `192.0.2.${i}`))
    const started = (): number[] => attempts.filter(n => monitor.answerTo(n)?.type === 'proceed')
    await pass(0)
    expect(started()).toEqual(attempts.slice(0, 2))
    const [first = 0, second = 0] = attempts
    monitor.say({ type: 'outcome', n: first, outcome: 'temporary' })
    await pass(0)
    expect(started()).toEqual(attempts.slice(0, 3))
    monitor.say({ type: 'cancel', n: second })
    await pass(0)
    expect(started()).toEqual(attempts)
  })

  test('a server without an answer within the time limit is a temporary failure, and frees its place', async () => {
    const monitor = upstream(1)
    const late = monitor.attempt('ann', '192.0.2.1')
    await pass(LIMIT_MS)
    expect(monitor.answers.at(-1)).toEqual({ type: 'failed', n: late, failure: 'temporary' })
    expect(await waitOf(monitor, monitor.attempt('ann', '192.0.2.2'))).toBe(0)
  })
})

describe('with a checker', () => {
  /** Checks in a queue with one place; each check lasts until the test gives its result. */
  class TestChecker implements Checker {
    readonly started: CheckRequest[] = []
    readonly queue = new CheckQueue({ atOnce: 1, mostWaiting: 3 })
    readonly #verdicts: ((verdict: CheckResult) => void)[] = []

    check(request: CheckRequest): Promise<CheckResult> {
      return this.queue.run(request.applicant, () => {
        this.started.push(request)
        return new Promise(resolve => this.#verdicts.push(resolve))
      })
    }

    async decide(verdict: CheckResult): Promise<void> {
      this.#verdicts.shift()?.(verdict)
      await pass(0)
    }

    close(): void {}
  }

  const directory = temporaryDirectory()
  afterAll(() => directory.remove())

  const start = (delays?: readonly number[]): { monitor: Monitor; checker: TestChecker } => {
    const checker = new TestChecker()
    const log = createLog('popup', { level: 'error' })
    const workers = new MaildropWorkers(
      {
        runDir: directory.path,
        program: '/nonexistent',
        loginIds: undefined,
        logLevel: 'error',
        engine: 'auto',
        settings: {
          compat: 'none',
          sizes: 'wire',
          extraBlank: false,
          lock: 'none',
          idleTime: 600,
          workerIdle: 60,
          capabilities: { user: true, sasl: [], loginDelay: 0, implementation: 'auth-relay' },
        },
      },
      log,
      () => Date.now(),
    )
    return { monitor: new Monitor({ kind: 'checker', checker, workers }, delays), checker }
  }

  test('delays grow with each new wrong password of a login, as text', async () => {
    const { monitor, checker } = start()
    const waits: number[] = []
    for (let i = 1; i <= 5; i++) {
      monitor.verify('jürgen', `192.0.2.${i}`, `guess ${i}`)
      const before = Date.now()
      await pass(0)
      while (checker.started.length < i) await pass(1000)
      waits.push((Date.now() - before) / 1000)
      await checker.decide(no('wrong password'))
    }
    expect(waits).toEqual([0, 2, 4, 8, 15])
    expect(monitor.lines.at(-1)).toContain('user="jürgen"')
  })

  test('a client that disconnects while its check waits is dropped without a log line; the check never runs', async () => {
    const { monitor, checker } = start()
    monitor.verify('running')
    const cancelled = monitor.verify('gone', '198.51.100.1')
    await pass(0)
    expect(checker.queue.waiting).toBe(1)
    monitor.say({ type: 'cancel', n: cancelled })
    await pass(0)
    expect(checker.queue.waiting).toBe(0)
    await checker.decide(no('wrong password'))
    expect(checker.started.map(({ login }) => login)).toEqual(['running'])
    expect(monitor.answerTo(cancelled)).toBeUndefined()
    expect(monitor.lines.filter(line => line.includes('gone'))).toEqual([])
  })

  test('a check beyond its time limit is answered, and leaves the queue', async () => {
    const { monitor, checker } = start()
    const running = monitor.verify('running')
    const waiting = monitor.verify('waiting', '198.51.100.1')
    await pass(LIMIT_MS)
    for (const n of [running, waiting]) {
      expect(monitor.answerTo(n)).toEqual({ type: 'failed', n, failure: 'temporary' })
    }
    expect(checker.queue.waiting).toBe(0)
    await checker.decide(no('too late'))
    expect(checker.started).toHaveLength(1)
    expect(monitor.lines.filter(line => line.includes('did not answer in time'))).toHaveLength(2)
  })

  test('if too many checks wait, the answer is temporary, comes at once, and is not a failure of the client', async () => {
    const { monitor, checker } = start()
    for (let i = 0; i < 4; i++) monitor.verify(`login ${i}`)
    const refused = monitor.verify('one too many')
    await pass(0)
    expect(monitor.answerTo(refused)).toEqual({ type: 'failed', n: refused, failure: 'temporary' })
    expect(monitor.lines.at(-1)).toContain('too many password checks are waiting')
    expect(checker.queue.waiting).toBe(3)
    monitor.logins.processEnded(monitor.process)
    await pass(0)
    expect(checker.queue.waiting).toBe(0)
  })

  test('a checker that fails is a temporary failure', async () => {
    const { monitor, checker } = start()
    const n = monitor.verify('ann')
    await pass(0)
    await checker.decide(temporary('the database is down'))
    expect(monitor.answerTo(n)).toEqual({ type: 'failed', n, failure: 'temporary' })
  })

  test('the octets of one login process in progress are limited, and are freed', async () => {
    const { monitor, checker } = start()
    const first = monitor.verify('x'.repeat(12_000), '192.0.2.1', 'y'.repeat(12_000))
    await pass(0)
    // The queue refuses all but three. Their octets count until the end of this turn.
    const before = monitor.answers.length
    for (let i = 0; i < 1000; i++) monitor.verify('x'.repeat(12_000), '192.0.2.1', 'y'.repeat(12_000))
    const atOnce = monitor.answers.length - before
    expect(atOnce).toBe(1000 - Math.floor((8_388_608 - 24_000) / 24_000))
    const other: LoginProcess = { index: 1, send: message => monitor.answers.push(message) }
    const theirs = monitor.verify('ann', '203.0.113.1', 'secret', other)
    await pass(0)
    expect(monitor.answerTo(theirs)).toBeUndefined()
    expect(checker.queue.waiting).toBe(3)
    // A refused check is not in progress any more.
    const next = monitor.verify('x'.repeat(12_000), '198.51.100.1', 'y'.repeat(12_000))
    expect(monitor.answerTo(next)).toBeUndefined()
    expect(monitor.answerTo(first)).toBeUndefined()
    monitor.logins.processEnded(monitor.process)
    monitor.logins.processEnded(other)
  })

  test('a number that is in use is refused', async () => {
    const { monitor } = start()
    const n = monitor.verify('ann')
    const attempt = { id: '7f3a.99', login: 'bob', method: 'pass', ip: '192.0.2.1', tls: false } as const
    monitor.say({ type: 'verify', n, ...attempt, secret: 'secret', timestamp: '' })
    expect(monitor.answers).toEqual([{ type: 'failed', n, failure: 'temporary' }])
  })
})
