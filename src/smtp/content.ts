/**
 * The content of a message after DATA: finding its end, and treating line ends that servers
 * interpret differently.
 */

/** Result of reading a piece of a message's content. */
export type ContentStep = {
  /**
   * `more`: all octets of the input were taken. `end`: the message has ended. `violation`: the next
   * octet must not be passed.
   */
  readonly state: 'more' | 'end' | 'violation'
  /** Octets taken from the input. */
  readonly taken: number
}

/** Receives octets for the server. The caller may change the octets when the function returns. */
export type SendOctets = (octets: Uint8Array) => void

/**
 * The content of one message, from the reply to DATA to CRLF.CRLF. The CRLF of the DATA line counts
 * as the first CRLF.
 */
export interface Content {
  push(input: Uint8Array, write: SendOctets): ContentStep
}

const [NUL, LF, CR, DOT] = [0x00, 0x0a, 0x0d, 0x2e]
/** Position in a line after the last octet. */
const [LINE, TEXT, AFTER_CR, AFTER_DOT, AFTER_DOT_CR, ENDED] = [0, 1, 2, 3, 4, 5]

/**
 * Counts octets from `at` on that are plain. `before` is the octet before them. Plain octets have
 * no NUL, no LF without CR before it and no CR without LF behind it. No dot begins a line. The last
 * octet may be a CR. The count may be too small, never too large.
 */
export type PlainScan = (input: Uint8Array, at: number, before: number) => number

/** Counts no octet as plain, so that every octet is read one by one. */
export const scanNothing: PlainScan = () => 0

/** Octets that are read one by one where a scan stops. */
const BLOCK = 16

/** For each state the octet before the next one, or an octet with the same effect. */
const BEFORE = new Map([
  [LINE, LF],
  [TEXT, 0x20],
  [AFTER_CR, CR],
])

/**
 * Passes content unchanged up to an octet that servers interpret differently: LF without CR before
 * it, CR without LF behind it, NUL. The content behind is not passed, because some servers end the
 * message there and run the rest as commands (SMTP smuggling).
 */
export class StrictContent implements Content {
  readonly #scan: PlainScan
  #state = LINE

  constructor(scan: PlainScan = scanNothing) {
    this.#scan = scan
  }

  push(input: Uint8Array, write: SendOctets): ContentStep {
    const size = input.length
    let at = 0
    while (at < size) {
      at += this.#passPlain(input, at)
      // A block that is not plain, or the rest, is read octet by octet.
      for (const end = Math.min(at + BLOCK, size); at < end; at += 1) {
        const octet = input[at] ?? NUL
        const state = next(this.#state, octet)
        if (state === undefined) {
          if (at > 0) write(input.subarray(0, at))
          return { state: 'violation', taken: at }
        }
        this.#state = state
        if (state !== ENDED) continue
        write(input.subarray(0, at + 1))
        this.#state = LINE
        return { state: 'end', taken: at + 1 }
      }
    }
    if (size > 0) write(input)
    return { state: 'more', taken: size }
  }

  #passPlain(input: Uint8Array, at: number): number {
    const before = BEFORE.get(this.#state)
    const plain = before === undefined || input.length - at < BLOCK ? 0 : this.#scan(input, at, before)
    if (plain > 0) {
      const last = input[at + plain - 1]
      this.#state = last === LF ? LINE : last === CR ? AFTER_CR : TEXT
    }
    return plain
  }
}

/** The state after this octet; undefined if the octet must not be passed. */
function next(state: number, octet: number): number | undefined {
  if (octet === LF) return state === AFTER_CR ? LINE : state === AFTER_DOT_CR ? ENDED : undefined
  if (octet === NUL || state === AFTER_CR || state === AFTER_DOT_CR) return undefined
  if (octet === CR) return state === AFTER_DOT ? AFTER_DOT_CR : AFTER_CR
  return octet === DOT && state === LINE ? AFTER_DOT : TEXT
}

/** CRs in a row that are kept. More CRs are dropped, because text has no such runs. */
const MAX_RETURNS = 1000

/** Content of the current line so far. */
const [EMPTY, ONE_DOT, OTHER] = [0, 1, 2]

/**
 * Passes content with repaired line ends, for a device that sends them wrong. CR* LF, and a CR
 * without LF behind it, become CRLF; NUL becomes a space. Only the input octets CR LF . CR LF end
 * the message. Each other line of one dot is text and gets a second dot.
 */
export class RepairedContent implements Content {
  /**
   * Called once, at the first line of one dot that does not end the message. The device may wait
   * for a reply there, so the owner logs it.
   */
  readonly #onBareEnd: () => void
  #line = EMPTY
  /** CRs that were read and not written yet. */
  #returns = 0
  /** True if the line end before this line was CR LF in the input. */
  #isAfterCrlf = true
  #hasReportedBareEnd = false

  constructor(onBareEnd: () => void = () => {}) {
    this.#onBareEnd = onBareEnd
  }

  push(input: Uint8Array, write: SendOctets): ContentStep {
    // One octet can become two, and so can each CR held back. A dot held back adds two more.
    const output = new Uint8Array(2 * (input.length + MAX_RETURNS) + 4)
    let size = 0
    const put = (octet: number): void => {
      output[size] = octet
      size += 1
    }
    const endLine = (): void => {
      if (this.#line === ONE_DOT) {
        put(DOT)
        put(DOT)
        this.#reportBareEnd()
      }
      put(CR)
      put(LF)
      this.#line = EMPTY
    }
    const finish = (state: ContentStep['state'], taken: number): ContentStep => {
      if (size > 0) write(output.subarray(0, size))
      return { state, taken }
    }
    for (let at = 0; at < input.length; at += 1) {
      const octet = input[at] ?? NUL
      if (octet === CR) {
        if (this.#returns < MAX_RETURNS) this.#returns += 1
        continue
      }
      if (octet === LF) {
        const isCrlf = this.#returns >= 1
        if (this.#line === ONE_DOT && this.#returns === 1 && this.#isAfterCrlf) {
          put(DOT)
          put(CR)
          put(LF)
          return finish('end', at + 1)
        }
        endLine()
        this.#returns = 0
        this.#isAfterCrlf = isCrlf
        continue
      }
      if (this.#returns > 0) {
        for (; this.#returns > 0; this.#returns -= 1) endLine()
        this.#isAfterCrlf = false
      }
      if (octet === DOT && this.#line === EMPTY) {
        this.#line = ONE_DOT
        continue
      }
      if (this.#line === ONE_DOT) put(DOT)
      this.#line = OTHER
      put(octet === NUL ? 0x20 : octet)
    }
    return finish('more', input.length)
  }

  #reportBareEnd(): void {
    if (this.#hasReportedBareEnd) return
    this.#hasReportedBareEnd = true
    this.#onBareEnd()
  }
}

/** Finds CRLF.CRLF in discarded content. */
export class EndFinder {
  #matched = 0

  /** Returns the number of octets up to the end of the message, with the end; -1 without an end. */
  push(input: Uint8Array): number {
    for (let at = 0; at < input.length; at += 1) {
      const octet = input[at]
      if (octet === END[this.#matched]) this.#matched += 1
      else this.#matched = octet === CR ? 1 : 0
      if (this.#matched === END.length) return at + 1
    }
    return -1
  }
}

const END: readonly number[] = [CR, LF, DOT, CR, LF]

/** Octets of a refused message that are discarded before the session ends. */
const MAX_DISCARDED_OCTETS = 16 * 1_048_576

/** Discards the rest of a message that was refused. */
export class DiscardedContent {
  readonly #finder = new EndFinder()
  #octets = 0

  /** True at the end of the message, or when more than MAX_DISCARDED_OCTETS were discarded. */
  push(input: Uint8Array): boolean {
    this.#octets += input.length
    return this.#finder.push(input) >= 0 || this.#octets > MAX_DISCARDED_OCTETS
  }
}
