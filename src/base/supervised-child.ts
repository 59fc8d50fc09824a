/**
 * A child process that its parent keeps running: starts, restarts, detection of a hung child, stop.
 *
 * A child is in exactly one of four states. `idle`: it does not run. `running`: it was launched and
 * has not ended. `waiting`: the next start is scheduled. `stopped`: it is never started again. The
 * parent provides the launch, and decides at each end whether the child restarts.
 */
import { readFileSync } from 'node:fs'
import { type Clock, monotonicClock } from './clock.ts'

const FIRST_MS = 100
const LONGEST_MS = 10_000
/** After a run of this length the next wait is the shortest again. */
const SOUND_RUN_MS = 60_000

/** A launched process. */
export type ChildRun<Ending> = {
  /** Fulfilled when the process has ended. */
  readonly ended: Promise<Ending>
}

export type ChildOptions<R extends ChildRun<Ending>, Ending> = {
  /** Starts the process. */
  readonly launch: () => R
  /**
   * A run has ended, also after `stop`. The parent calls `restart` if the process is needed again.
   */
  readonly ended: (ending: Ending, run: R) => void
  readonly clock?: Clock
}

/** A step of the stop of a child, `after` milliseconds from the step before it. */
export type StopStep<R> = { readonly after: number; readonly act: (run: R) => void }

/**
 * Runs at most one process at a time and schedules at most one start. The wait before a restart is
 * 0.1 s, doubled at each failure up to 10 s.
 */
export class SupervisedChild<R extends ChildRun<Ending>, Ending = Awaited<R['ended']>> {
  readonly #launch: () => R
  readonly #ended: (ending: Ending, run: R) => void
  readonly #clock: Clock
  #run: R | undefined
  #begun = 0
  #wait = FIRST_MS
  #timer: NodeJS.Timeout | undefined
  #isStopped = false

  constructor({ launch, ended, clock = monotonicClock }: ChildOptions<R, Ending>) {
    this.#launch = launch
    this.#ended = ended
    this.#clock = clock
  }

  /** The process that runs now. */
  get run(): R | undefined {
    return this.#run
  }

  /** No start follows. */
  get isStopped(): boolean {
    return this.#isStopped
  }

  /**
   * Starts the process unless it runs, is scheduled, or was stopped. Returns the running process.
   */
  start(): R | undefined {
    if (this.#run !== undefined || this.#timer !== undefined || this.#isStopped) return this.#run
    this.#begun = this.#clock()
    const run = this.#launch()
    this.#run = run
    void run.ended.then(ending => this.#end(run, ending))
    return run
  }

  /**
   * Schedules the next start and returns the milliseconds until then. `inOrder`: the run did not
   * fail, so it is 0.
   */
  restart({ inOrder = false }: { readonly inOrder?: boolean } = {}): number {
    const wait = this.#nextWait(inOrder)
    if (this.#isStopped) return wait
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.start()
    }, wait)
    return wait
  }

  /**
   * Stops the child, which never starts again. A process that runs gets the steps one after the
   * other until it has ended. Fulfilled when no process runs.
   */
  async stop(...steps: readonly StopStep<R>[]): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#timer)
    this.#timer = undefined
    const run = this.#run
    if (run === undefined) return
    let timer: NodeJS.Timeout | undefined
    const next = ([step, ...later]: readonly StopStep<R>[]): void => {
      if (step === undefined) return
      const act = (): void => {
        step.act(run)
        next(later)
      }
      if (step.after === 0) act()
      else timer = setTimeout(act, step.after)
    }
    next(steps)
    await run.ended
    clearTimeout(timer)
  }

  #end(run: R, ending: Ending): void {
    this.#run = undefined
    this.#ended(ending, run)
  }

  #nextWait(inOrder: boolean): number {
    if (inOrder || this.#clock() - this.#begun >= SOUND_RUN_MS) this.#wait = FIRST_MS
    if (inOrder) return 0
    const wait = this.#wait
    this.#wait = Math.min(LONGEST_MS, wait * 2)
    return wait
  }
}

/**
 * Time between two pings, and the number of unanswered ones after which a process counts as hung:
 * at most 14 s.
 */
const INTERVAL_MS = 3_500
const MAX_UNANSWERED = 3
/** Intervals in which a program must have loaded: at most 31.5 s, because a host may be slow. */
const LOADING_INTERVALS = 8

/**
 * Detects a process that is alive and does not answer, because it is stopped or its event loop is
 * blocked. Pings are counted instead of seconds, so that a pause of the observer itself does not
 * count. Pings start after the first message of the process, because a program that is loading
 * cannot answer. Until then a process counts as hung if it was stopped (SIGSTOP) at three looks in
 * a row, and, with `watchLoading`, if it does not send the message in time.
 */
export class Pings {
  readonly #send: () => void
  readonly #hung: () => void
  readonly #isStopped: () => boolean
  readonly #timer: NodeJS.Timeout
  /** Pings without an answer, or before the first message, looks at a stopped process. */
  #unanswered = 0
  #hasAnswered = false
  /** Intervals that are left for loading. */
  #loading = Infinity
  #isEnded = false

  /**
   * `send` sends a ping. `hung` is called once. `isStopped`: see isStoppedProcess. Create the
   * object when the process is launched.
   */
  constructor(send: () => void, hung: () => void, isStopped: () => boolean) {
    this.#send = send
    this.#hung = hung
    this.#isStopped = isStopped
    this.#timer = setInterval(() => this.#tick(), INTERVAL_MS).unref()
  }

  /** The process sends a message as soon as it has loaded. */
  watchLoading(): void {
    this.#loading = LOADING_INTERVALS
  }

  /** The process answered, or sent another message. */
  alive(): void {
    this.#hasAnswered = true
    this.#unanswered = 0
    this.#loading = Infinity
  }

  end(): void {
    this.#isEnded = true
    clearInterval(this.#timer)
  }

  get #isLate(): boolean {
    return this.#unanswered >= MAX_UNANSWERED || this.#loading <= 0
  }

  #tick(): void {
    if (!this.#isLate) {
      this.#count()
      return
    }
    // Answers that have arrived are read before this runs.
    setImmediate(() => {
      if (this.#isEnded || !this.#isLate) return
      this.end()
      this.#hung()
    })
  }

  #count(): void {
    if (this.#hasAnswered) {
      this.#unanswered += 1
      this.#send()
    } else {
      this.#unanswered = this.#isStopped() ? this.#unanswered + 1 : 0
      this.#loading -= 1
    }
  }
}

/**
 * Watches a program that answers no pings. Calls `stopped` once if a signal has stopped it at three
 * looks in a row. Call `end` when the program has ended.
 */
export const watchForStop = (pid: number | undefined, stopped: () => void): Pick<Pings, 'end'> =>
  new Pings(
    () => {},
    stopped,
    () => isStoppedProcess(pid),
  )

/** Sends a signal to each process of a group. Does nothing if none is left. */
export function signalGroup(leader: number | undefined, signal: NodeJS.Signals): void {
  if (leader === undefined) return
  try {
    process.kill(-leader, signal)
  } catch {
    // ESRCH: no process of the group is left, as intended.
  }
}

/** True if a signal has stopped the process: state T of /proc/PID/stat (proc(5)). */
export function isStoppedProcess(pid: number | undefined): boolean {
  if (pid === undefined) return false
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The second field is the program's name in parentheses and may hold parentheses.
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')
  } catch {
    return false // the process has ended
  }
}
