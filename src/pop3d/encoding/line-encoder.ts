import { LINE_ENCODER_MODULE } from './line-encoder-module.ts'

/** Line ends and dots of message files as RFC 1939 §3 sends them: a WebAssembly kernel, and its twin in script. */

export const LF = 0x0a
export const CR = 0x0d
const DOT = 0x2e

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

/** The fastest encoder that this runtime has, for chunks of up to `maxInput` octets. */
export const createEncoder = (maxInput: number): LineEncoder =>
  createKernelEncoder(maxInput) ?? createScriptEncoder(maxInput)

const PAGE = 65_536
/** Octets that the kernel looks at together. */
const BLOCK = 16

/** Transfers at once in which nothing is copied. The memory of a lane is touched when it is first used. */
const LANES = 16

type Encode = (input: number, length: number, output: number, keepCr: number) => number
type Count = (input: number, length: number, keepCr: number) => number

/** The encoder as a SIMD kernel; undefined where the runtime has no WebAssembly, or none with SIMD. */
export function createKernelEncoder(maxInput: number): LineEncoder | undefined {
  const inputAt = BLOCK
  const outputAt = inputAt + maxInput + BLOCK
  const outputLength = maxInput * MAX_EXPANSION + BLOCK
  const lanesAt = outputAt + outputLength
  const laneLength = BLOCK + maxInput + BLOCK + 2 * outputLength
  const pages = Math.ceil((lanesAt + LANES * laneLength) / PAGE)
  const exports = instantiate(pages)
  if (exports === undefined) return undefined
  const { memory, encode, count } = exports
  const octets = new Uint8Array(memory.buffer)
  const put = (input: Uint8Array, previous: number): void => {
    if (input.length > maxInput) throw new RangeError(`${input.length} octets at once, ${maxInput} at most`)
    octets[inputAt - 1] = previous
    octets.set(input, inputAt)
    octets.fill(0, inputAt + input.length, inputAt + input.length + BLOCK)
  }
  const laneAt = (start: number): EncoderLane => {
    const at = start + BLOCK
    const outputs = at + maxInput + BLOCK
    return {
      input: Buffer.from(memory.buffer, at, maxInput),
      encode(length, previous, keepCr, output) {
        if (length > maxInput) throw new RangeError(`${length} octets at once, ${maxInput} at most`)
        octets[at - 1] = previous
        octets.fill(0, at + length, at + length + BLOCK)
        const to = outputs + output * outputLength
        return octets.subarray(to, to + encode(at, length, to, keepCr ? 1 : 0))
      },
    }
  }
  const lanes = Array.from({ length: LANES }, (_, index) => laneAt(lanesAt + index * laneLength))
  return {
    maxInput,
    takeLane: () => lanes.pop(),
    giveLane: lane => {
      lanes.push(lane)
    },
    encode(input, previous, keepCr) {
      put(input, previous)
      const length = encode(inputAt, input.length, outputAt, keepCr ? 1 : 0)
      return octets.subarray(outputAt, outputAt + length)
    },
    count(input, previous, keepCr) {
      put(input, previous)
      return input.length + count(inputAt, input.length, keepCr ? 1 : 0)
    },
  }
}

function instantiate(pages: number): { memory: WebAssembly.Memory; encode: Encode; count: Count } | undefined {
  if (typeof WebAssembly === 'undefined') return undefined
  const binary = Uint8Array.from(Buffer.from(LINE_ENCODER_MODULE, 'base64'))
  if (!WebAssembly.validate(binary)) return undefined
  const memory = new WebAssembly.Memory({ initial: pages })
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(binary), { host: { memory } })
  const { encode, count } = exports
  if (typeof encode !== 'function' || typeof count !== 'function') {
    throw new TypeError('the kernel exports other things than it declares')
  }
  return {
    memory,
    encode: (...args) => Number(encode(...args)),
    count: (...args) => Number(count(...args)),
  }
}

/** The encoder in plain script: what the SIMD kernel must agree with, and its stand-in where WebAssembly is off. */
export function createScriptEncoder(maxInput: number): LineEncoder {
  const output = Buffer.allocUnsafeSlow(maxInput * MAX_EXPANSION)
  return {
    maxInput,
    takeLane: () => undefined,
    giveLane: () => {},
    encode(input, previous, keepCr) {
      let written = 0
      let start = 0
      while (start < input.length) {
        const before = start === 0 ? previous : LF
        if (before === LF && input[start] === DOT) output[written++] = DOT
        const end = input.indexOf(LF, start)
        const stop = end < 0 ? input.length : end
        output.set(input.subarray(start, stop), written)
        written += stop - start
        if (end < 0) break
        const last = end === 0 ? previous : input[end - 1]
        if (last !== CR || keepCr) output[written++] = CR
        output[written++] = LF
        start = end + 1
      }
      return output.subarray(0, written)
    },
    count(input, previous, keepCr) {
      let octets = input.length
      for (let end = input.indexOf(LF); end >= 0; end = input.indexOf(LF, end + 1)) {
        if (keepCr || (end === 0 ? previous : input[end - 1]) !== CR) octets += 1
      }
      return octets
    },
  }
}
