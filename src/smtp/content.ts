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

/**
 * Receives octets for the server. The octets belong to the caller again when the function returns.
 */
export type WriteOctets = (octets: Uint8Array) => void

/**
 * The content of one message, from the reply to DATA to CRLF.CRLF. The CRLF of the DATA line counts
 * as the first CRLF.
 */
export interface Content {
  push(input: Uint8Array, write: WriteOctets): ContentStep
}

const [NUL, LF, CR, DOT] = [0x00, 0x0a, 0x0d, 0x2e]
/** LF, CR and NUL are below 14. The other octets below 14 need no handling. */
const FIRST_HARMLESS = 14

/** Position in a line after the last octet. */
const [LINE, TEXT, AFTER_CR, AFTER_DOT, AFTER_DOT_CR] = [0, 1, 2, 3, 4]

/**
 * Passes content unchanged up to an octet that servers interpret differently: LF without CR before
 * it, CR without LF behind it, NUL. That octet is not passed, because some servers end the message
 * there and run the rest as commands.
 */
export class StrictContent implements Content {
  #state = LINE

  push(input: Uint8Array, write: WriteOctets): ContentStep {
    const size = input.length
    let state = this.#state
    let at = 0
    for (; at < size; at += 1) {
      let octet = input[at] ?? NUL
      if (state === TEXT && octet >= FIRST_HARMLESS) {
        at = endOfText(input, at + 1)
        if (at === size) break
        octet = input[at] ?? NUL
      }
      if (octet === LF) {
        if (state === AFTER_DOT_CR) {
          write(input.subarray(0, at + 1))
          this.#state = LINE
          return { state: 'end', taken: at + 1 }
        }
        if (state !== AFTER_CR) return this.#violation(input, at, write)
        state = LINE
      } else if (octet === NUL || state === AFTER_CR || state === AFTER_DOT_CR) {
        return this.#violation(input, at, write)
      } else if (octet === CR) {
        state = state === AFTER_DOT ? AFTER_DOT_CR : AFTER_CR
      } else {
        state = octet === DOT && state === LINE ? AFTER_DOT : TEXT
      }
    }
    this.#state = state
    if (size > 0) write(input)
    return { state: 'more', taken: size }
  }

  #violation(input: Uint8Array, at: number, write: WriteOctets): ContentStep {
    if (at > 0) write(input.subarray(0, at))
    return { state: 'violation', taken: at }
  }
}

/**
 * Returns the index of the first octet from `at` on that is below FIRST_HARMLESS, or the length of
 * the input.
 */
function endOfText(input: Uint8Array, at: number): number {
  const size = input.length
  let end = at
  while (end < size && (input[end] ?? NUL) >= FIRST_HARMLESS) end += 1
  return end
}

/** CRs of one line end that are kept. More CRs are dropped, because text has no such runs. */
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
   * Called once, at the first line of one dot that does not end the message. The device may be
   * waiting for a reply there.
   */
  readonly #onBareEnd: () => void
  #line = EMPTY
  /** CRs that were read and not written yet. */
  #returns = 0
  /** True if the line end before this line was CR LF in the input. */
  #isAfterCrlf = true
  #toldOfBareEnd = false

  constructor(onBareEnd: () => void = () => {}) {
    this.#onBareEnd = onBareEnd
  }

  push(input: Uint8Array, write: WriteOctets): ContentStep {
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
        this.#tellOfBareEnd()
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

  #tellOfBareEnd(): void {
    if (this.#toldOfBareEnd) return
    this.#toldOfBareEnd = true
    this.#onBareEnd()
  }
}

/** Finds CRLF.CRLF in discarded content. */
export class EndFinder {
  #matched = 0

  /** Returns the number of octets up to the end of the message, the end included, or -1. */
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
