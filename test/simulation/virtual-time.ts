/**
 * Time and timers of a simulation. No timer waits, because the clock jumps from one due timer to
 * the next.
 *
 * `install` replaces the timers of the runtime by those of this object, so that production modules
 * run in virtual time unchanged. Between two timers every promise that is due is settled, as in the
 * runtime. Timers of the same time run in the order in which they were set.
 */
export class VirtualTime {
  /** Milliseconds since the beginning of the simulation; never steps. */
  now = 0
  readonly #heap = new Heap()
  #taken = 0
  #restore: (() => void) | undefined

  /** Replaces the global timers until `uninstall`. */
  install(): void {
    const names = [
      'setTimeout',
      'setInterval',
      'setImmediate',
      'clearTimeout',
      'clearInterval',
      'clearImmediate',
    ] as const
    const saved = names.map(name => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const)
    const timeout = Object.getOwnPropertyDescriptor(AbortSignal, 'timeout')
    const clear = (timer: unknown): void => {
      if (timer instanceof VirtualTimer) timer.close()
    }
    const replacements: Record<(typeof names)[number], unknown> = {
      setTimeout: (callback: () => void, delay = 0) => this.after(delay, callback),
      setInterval: (callback: () => void, delay = 0) => this.#every(Math.max(1, delay), callback),
      setImmediate: (callback: () => void) => this.after(0, callback),
      clearTimeout: clear,
      clearInterval: clear,
      clearImmediate: clear,
    }
    for (const name of names) {
      Object.defineProperty(globalThis, name, { value: replacements[name], configurable: true, writable: true })
    }
    Object.defineProperty(AbortSignal, 'timeout', {
      value: (milliseconds: number): AbortSignal => {
        const controller = new AbortController()
        this.after(milliseconds, () => controller.abort(TIMED_OUT))
        return controller.signal
      },
      configurable: true,
      writable: true,
    })
    this.#restore = () => {
      for (const [name, descriptor] of saved)
        if (descriptor !== undefined) Object.defineProperty(globalThis, name, descriptor)
      if (timeout !== undefined) Object.defineProperty(AbortSignal, 'timeout', timeout)
    }
  }

  uninstall(): void {
    this.#restore?.()
    this.#restore = undefined
  }

  /** Calls a function after a time in milliseconds. */
  after(milliseconds: number, callback: () => void): VirtualTimer {
    return this.#add(new VirtualTimer(this, Math.max(0, milliseconds), false, callback))
  }

  /** Advances the clock by a time in milliseconds and runs the timers that fall due. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.now + milliseconds
    await settled()
    for (;;) {
      const next = this.#heap.first
      if (next === undefined || next.at > end) break
      this.#heap.removeFirst()
      if (!next.timer.isDue(next)) continue
      this.now = next.at
      next.timer.fire()
      await settled()
    }
    this.now = end
  }

  /** For VirtualTimer. */
  schedule(timer: VirtualTimer, delay: number): Due {
    this.#taken += 1
    const due = { at: this.now + delay, order: this.#taken, timer }
    this.#heap.add(due)
    return due
  }

  #every(delay: number, callback: () => void): VirtualTimer {
    return this.#add(new VirtualTimer(this, delay, true, callback))
  }

  #add(timer: VirtualTimer): VirtualTimer {
    timer.refresh()
    return timer
  }
}

type Due = { readonly at: number; readonly order: number; readonly timer: VirtualTimer }

/** The return value of setTimeout. */
class VirtualTimer {
  readonly #time: VirtualTime
  readonly #delay: number
  readonly #repeats: boolean
  readonly #callback: () => void
  #due: Due | undefined

  constructor(time: VirtualTime, delay: number, repeats: boolean, callback: () => void) {
    this.#time = time
    this.#delay = delay
    this.#repeats = repeats
    this.#callback = callback
  }

  refresh(): this {
    this.#due = this.#time.schedule(this, this.#delay)
    return this
  }

  isDue(due: Due): boolean {
    return this.#due === due
  }

  fire(): void {
    this.#due = undefined
    if (this.#repeats) this.refresh()
    this.#callback()
  }

  close(): this {
    this.#due = undefined
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  hasRef(): boolean {
    return true
  }
}

/** Binary heap: the earliest timer first; at the same time the one that was set first. */
class Heap {
  readonly #items: Due[] = []

  get first(): Due | undefined {
    return this.#items[0]
  }

  add(due: Due): void {
    const items = this.#items
    let place = items.length
    items.push(due)
    while (place > 0) {
      const above = (place - 1) >> 1
      const parent = items[above]
      if (parent === undefined || !isBefore(due, parent)) break
      items[place] = parent
      place = above
    }
    items[place] = due
  }

  removeFirst(): void {
    const items = this.#items
    const last = items.pop()
    if (last === undefined || items.length === 0) return
    let place = 0
    for (;;) {
      const left = 2 * place + 1
      const [a, b] = [items[left], items[left + 1]]
      if (a === undefined) break
      const [child, at] = b !== undefined && isBefore(b, a) ? [b, left + 1] : [a, left]
      if (!isBefore(child, last)) break
      items[place] = child
      place = at
    }
    items[place] = last
  }
}

const isBefore = (a: Due, b: Due): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

const { setImmediate: realSetImmediate } = globalThis

/**
 * Calls of setImmediate at once. An iteration of the event loop runs all of their callbacks, and
 * settles the due promises after each one. An iteration takes longer than most timers.
 */
const CALLS = 64
let callsLeft = 0
let onCall: () => void = () => {}

/** Waits until every promise that is due is settled. */
function settled(): Promise<void> {
  if (callsLeft === 0) {
    callsLeft = CALLS
    for (let n = 0; n < CALLS; n += 1) {
      realSetImmediate(() => {
        callsLeft -= 1
        onCall()
      })
    }
  }
  return new Promise(resolve => {
    onCall = resolve
  })
}

/** One error for all timeouts, because making one takes longer than most steps of a simulation. */
const TIMED_OUT = new DOMException('timed out', 'TimeoutError')
