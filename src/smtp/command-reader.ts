import { MAX_AUTH_LINE, MAX_COMMAND_LINE } from './command.ts'

/** A line of the client, without its end; one character per octet. */
export type CommandLine =
  | { readonly type: 'line'; readonly text: string }
  | { readonly type: 'too_long' | 'control_character' | 'tls_hello' }

const LF = 0x0a
const CR = 0x0d
/** The first octet of a TLS record that holds a handshake. */
const TLS_HANDSHAKE = 0x16
const NOTHING: Buffer = Buffer.alloc(0)

/**
 * Cuts octets into command lines. A line ends with LF, and one CR before that belongs to the end.
 * The reader holds what was
 * pushed until it is taken, and of an unfinished line at most MAX_AUTH_LINE octets.
 */
export class CommandReader {
  #octets: Buffer = NOTHING
  #isDiscarding = false

  push(octets: Uint8Array): void {
    this.#octets = Buffer.concat([this.#octets, octets])
  }

  /** Octets that belong to no line taken. */
  get pending(): number {
    return this.#octets.length
  }

  /** Takes everything pending. */
  rest(): Buffer {
    const rest = this.#octets
    this.#octets = NOTHING
    return rest
  }

  /** Forgets an unfinished line. */
  dropRest(): void {
    this.#octets = NOTHING
  }

  /** The next line, or undefined if more octets are needed. `isAuth`: the line answers a challenge of AUTH. */
  next(isAuth: boolean): CommandLine | undefined {
    const octets = this.#octets
    if (octets[0] === TLS_HANDSHAKE && !this.#isDiscarding && !isAuth) return { type: 'tls_hello' }
    const limit =
      isAuth || /^[ \t]*auth[ \t]/i.test(octets.toString('latin1', 0, 64)) ? MAX_AUTH_LINE : MAX_COMMAND_LINE
    const end = octets.indexOf(LF)
    if (end < 0) {
      if (octets.length >= limit) this.#isDiscarding = true
      if (this.#isDiscarding) this.#octets = NOTHING
      return undefined
    }
    this.#octets = octets.subarray(end + 1)
    const isTooLong = this.#isDiscarding || end + 1 > limit
    this.#isDiscarding = false
    if (isTooLong) return { type: 'too_long' }
    const text = octets.toString('latin1', 0, end > 0 && octets[end - 1] === CR ? end - 1 : end)
    return /[\0-\x08\x0a-\x1f\x7f]/.test(text) ? { type: 'control_character' } : { type: 'line', text }
  }
}
