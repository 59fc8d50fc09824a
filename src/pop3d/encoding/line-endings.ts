export const LF = 0x0a
export const CR = 0x0d
export const DOT = 0x2e

/** An encoded chunk is at most so many times as long as its input: when every octet is LF, or a dot after LF. */
export const MAX_EXPANSION = 2

/**
 * Turns octets of a message file into octets of the wire: every line ends in CRLF, a line that begins with a dot gets
 * one more (RFC 1939 §3). All other octets pass unchanged. A CR before LF stays the only one; with `keepCr`, as in
 * qmail, it is sent besides ours.
 */
export interface LineEncoder {
  /** Encodes a chunk of the file; `previous` is the octet before it, LF at the start. The result is the encoder's own
   * memory, valid until the next call. `input` may be up to `maxInput` octets long. */
  encode(input: Uint8Array, previous: number, keepCr: boolean): Uint8Array
  /** Octets that `encode` would give without byte-stuffing: the message size of RFC 1939 §11. */
  count(input: Uint8Array, previous: number, keepCr: boolean): number
  readonly maxInput: number
  /** Memory for one transfer in which nothing is copied; undefined if there is none, or none left. */
  takeLane(): EncoderLane | undefined
  /** Takes it back: nobody may read from its outputs any more. */
  giveLane(lane: EncoderLane): void
}

/** A piece of the encoder's own memory: a file is read into `input`, and encoded from there into one of two outputs. */
export interface EncoderLane {
  /** `maxInput` octets long. */
  readonly input: Buffer
  /**
   * As LineEncoder.encode, for the first `length` octets of `input`; the result is good until the
   * same output is asked for again.
   */
  encode(length: number, previous: number, keepCr: boolean, output: 0 | 1): Uint8Array
}

/** What completes the last line after the whole file was encoded; empty for an empty file or one that ends in LF. */
export const lineEndAfter = (previous: number, keepCr: boolean): string =>
  previous === LF ? '' : previous === CR && !keepCr ? '\n' : '\r\n'
