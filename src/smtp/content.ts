/** How far a read of a message's content went. */
export type ContentStep = {
  /**
   * `more`: all of the input was taken. `end`: the message ended. `violation`: the next octet
   * cannot be passed.
   */
  readonly state: 'more' | 'end' | 'violation'
  /** Octets taken of the input. */
  readonly taken: number
}

/** Takes octets for the server; they are the caller's again once this returns. */
export type WriteOctets = (octets: Uint8Array) => void

/**
 * The content of one message, from the reply to DATA to CRLF.CRLF. The CRLF of the DATA line counts
 * as the first.
 */
export interface Content {
  push(input: Uint8Array, write: WriteOctets): ContentStep
}

const [NUL, LF, CR, DOT] = [0x00, 0x0a, 0x0d, 0x2e]
/** LF, CR and NUL are below; so are octets that mean nothing here. */
const FIRST_HARMLESS = 14

/** Where in a line the last octet stands. */
const [LINE, TEXT, AFTER_CR, AFTER_DOT, AFTER_DOT_CR] = [0, 1, 2, 3, 4]

/**
 * Passes content as it is until an octet comes that servers do not agree about: LF without CR
 * before it, CR without LF behind it, NUL. Such an octet is not passed: some servers end a message
 * there, and run the rest as commands.
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

/** The first octet from `at` on that is below FIRST_HARMLESS, or the size. */
function endOfText(input: Uint8Array, at: number): number {
  const size = input.length
  let end = at
  while (end < size && (input[end] ?? NUL) >= FIRST_HARMLESS) end += 1
  return end
}

/** Of a longer run of CRs the others are left out: no text has one. */
const MAX_RETURNS = 1000

/** The octets of the current line so far. */
const [EMPTY, ONE_DOT, OTHER] = [0, 1, 2]

/**
 * Passes content with its line ends repaired, for a device that sends them wrong: CR* LF, and a CR
 * that no LF follows, are
 * a line end and become CRLF; NUL becomes a space. The message ends only at the octets CR LF . CR
 * LF of the input. Every
 * other line of one dot is text and gets a second dot.
 */
export class RepairedContent implements Content {
  /**
   * Called once for a line of one dot that does not end the message: the device may wait for a
   * reply.
   */
  readonly #onBareEnd: () => void
  #line = EMPTY
  /** CRs that have come and are not written. */
  #returns = 0
  /** Whether the line end before this line was CR LF in the input. */
  #isAfterCrlf = true
  #toldOfBareEnd = false

  constructor(onBareEnd: () => void = () => {}) {
    this.#onBareEnd = onBareEnd
  }

  push(input: Uint8Array, write: WriteOctets): ContentStep {
    // An octet makes two, and so does each CR that is held back; a dot that is held back makes two
    // more.
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

/** Finds CRLF.CRLF in content that is discarded. */
export class EndFinder {
  #matched = 0

  /** Octets up to and with the end, or -1. */
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
