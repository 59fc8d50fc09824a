import { LINE_ENCODER_MODULE } from './line-encoder-module.ts'

/**
 * Line ends and dots of message files as RFC 1939 §3 sends them.
 *
 * A transfer takes an encoder for itself: memory for a piece of the file, and for two results, so
 * that one can be written while the next is made. A kernel in WebAssembly does the work, and a twin
 * in script where there is none. Encoders of the kernel stand side by side in the memory of one
 * instance: each memory of WebAssembly reserves ten gigabytes of address space, and an instance for
 * each transfer would reach the limits of a host (decision 12).
 */

export const LF = 0x0a
export const CR = 0x0d
const DOT = 0x2e

/**
 * An encoded piece is at most so many times as long as its input: when every octet is LF, or a dot
 * after LF.
 */
const MAX_EXPANSION = 2
/**
 * Octets of an output besides the longest result: the head and the end of a reply fit around it.
 */
export const REPLY_ROOM = 64

/**
 * Turns octets of a message file into octets of the wire: every line ends in CRLF, a line that
 * begins with a dot gets one more (RFC 1939 §3). All other octets pass unchanged. A CR before LF
 * stays the only one; with `keepCr`, as in qmail, it is sent besides ours.
 */
export interface LineEncoder {
  /** Where a piece of the file is put; as long as the pool says. */
  readonly input: Buffer
  /** Where results are put; the encoder writes only what `encode` says. */
  readonly outputs: readonly [Buffer, Buffer]
  /**
   * Encodes the first `length` octets of `input` into an output from `at` on, at most REPLY_ROOM /
   * 2, and says how many octets that made. `previous` is the octet before the piece, LF at the
   * start of the file. May change the 16 octets of the output behind the result.
   */
  encode(length: number, previous: number, keepCr: boolean, output: 0 | 1, at: number): number
  /** Octets that `encode` would make without byte-stuffing: the message size of RFC 1939 §11. */
  count(length: number, previous: number, keepCr: boolean): number
  /** Gives the memory to another transfer: nobody may read from it or write to it any more. */
  release(): void
}

/**
 * What completes the last line after the whole file was encoded; empty for an empty file or one
 * that ends in LF.
 */
export const lineEndAfter = (previous: number, keepCr: boolean): string =>
  previous === LF ? '' : previous === CR && !keepCr ? '\n' : '\r\n'

/**
 * The encoders of a process, for pieces of up to `maxInput` octets. Their number is that of the
 * transfers at one time.
 */
export class EncoderPool {
  readonly maxInput: number
  readonly #makeBlock: (maxInput: number) => readonly Slot[]
  readonly #blocks: Block[] = []

  /** `makeBlock`: the kernel's, or the twin's. */
  constructor(maxInput: number, makeBlock: (maxInput: number) => readonly Slot[] = kernelBlock ?? scriptBlock) {
    this.maxInput = maxInput
    this.#makeBlock = makeBlock
  }

  take(): LineEncoder {
    const block = this.#blocks.find(({ free }) => free.length > 0) ?? this.#addBlock()
    const encoder = block.free.pop()
    if (encoder === undefined) throw new Error('a block of encoders is empty')
    return encoder
  }

  #addBlock(): Block {
    const block: Block = { free: [], size: 0 }
    const slots = this.#slots()
    for (const slot of slots) {
      const encoder: LineEncoder = {
        ...slot,
        release: () => {
          block.free.push(encoder)
          // Of the memory of a rush only the first block stays.
          const at = this.#blocks.indexOf(block)
          if (at > 0 && block.free.length === block.size) this.#blocks.splice(at, 1)
        },
      }
      block.free.push(encoder)
    }
    block.size = slots.length
    this.#blocks.push(block)
    return block
  }

  #slots(): readonly Slot[] {
    try {
      return this.#makeBlock(this.maxInput)
    } catch (error) {
      // The address space has a limit (RLIMIT_AS): script needs no reserve.
      if (error instanceof RangeError) return scriptBlock(this.maxInput)
      throw error
    }
  }
}

/** An encoder without its place in a pool. */
type Slot = Omit<LineEncoder, 'release'>
type Block = { readonly free: LineEncoder[]; size: number }

/**
 * The part of WebAssembly that is used here: the compiler knows it only with the types of a
 * browser.
 */
declare namespace WebAssembly {
  class Module {
    constructor(binary: Uint8Array<ArrayBuffer>)
  }
  class Instance {
    readonly exports: Readonly<Record<string, unknown>>
    constructor(module: Module, imports: Readonly<Record<string, Readonly<Record<string, unknown>>>>)
  }
  class Memory {
    readonly buffer: ArrayBuffer
    constructor(pages: { readonly initial: number })
  }
  function validate(binary: Uint8Array<ArrayBuffer>): boolean
}

const PAGE = 65_536
/** Octets that the kernel looks at together. */
const BLOCK = 16
/** Encoders of one instance. Their memory is touched when it is first used. */
const SLOTS = 16

/**
 * Makes encoders of the kernel; undefined where the runtime has no WebAssembly, or none with SIMD.
 */
export const kernelBlock: ((maxInput: number) => readonly Slot[]) | undefined = kernelBlocks()

function kernelBlocks(): ((maxInput: number) => readonly Slot[]) | undefined {
  if (typeof WebAssembly === 'undefined') return undefined
  const binary = Uint8Array.from(Buffer.from(LINE_ENCODER_MODULE, 'base64'))
  if (!WebAssembly.validate(binary)) return undefined
  const module = new WebAssembly.Module(binary)
  return maxInput => {
    const outputLength = maxInput * MAX_EXPANSION + REPLY_ROOM
    const slotLength = BLOCK + maxInput + BLOCK + 2 * outputLength
    const memory = new WebAssembly.Memory({ initial: Math.ceil((SLOTS * slotLength) / PAGE) })
    const { encode, count } = new WebAssembly.Instance(module, { host: { memory } }).exports
    if (typeof encode !== 'function' || typeof count !== 'function') {
      throw new TypeError('the kernel exports other things than it declares')
    }
    const octets = new Uint8Array(memory.buffer)
    const view = (from: number, length: number): Buffer => Buffer.from(memory.buffer, from, length)
    return Array.from({ length: SLOTS }, (_, index): Slot => {
      const inputAt = index * slotLength + BLOCK
      const outputAt = inputAt + maxInput + BLOCK
      const prepare = (length: number, previous: number): void => {
        if (length > maxInput) throw new RangeError(`${length} octets at once, ${maxInput} at most`)
        octets[inputAt - 1] = previous
        octets.fill(0, inputAt + length, inputAt + length + BLOCK)
      }
      return {
        input: view(inputAt, maxInput),
        outputs: [view(outputAt, outputLength), view(outputAt + outputLength, outputLength)],
        encode(length, previous, keepCr, output, at) {
          prepare(length, previous)
          return Number(encode(inputAt, length, outputAt + output * outputLength + at, keepCr ? 1 : 0))
        },
        count(length, previous, keepCr) {
          prepare(length, previous)
          return length + Number(count(inputAt, length, keepCr ? 1 : 0))
        },
      }
    })
  }
}

/** One encoder in plain script: what the kernel must agree with, and its stand-in. */
export function scriptBlock(maxInput: number): readonly Slot[] {
  const input = Buffer.allocUnsafeSlow(maxInput)
  const outputLength = maxInput * MAX_EXPANSION + REPLY_ROOM
  const outputs = [Buffer.allocUnsafeSlow(outputLength), Buffer.allocUnsafeSlow(outputLength)] as const
  const slot: Slot = {
    input,
    outputs,
    encode(length, previous, keepCr, output, at) {
      const piece = input.subarray(0, length)
      const out = outputs[output]
      let written = at
      let start = 0
      while (start < length) {
        const before = start === 0 ? previous : LF
        if (before === LF && piece[start] === DOT) out[written++] = DOT
        const end = piece.indexOf(LF, start)
        const stop = end < 0 ? length : end
        out.set(piece.subarray(start, stop), written)
        written += stop - start
        if (end < 0) break
        const last = end === 0 ? previous : piece[end - 1]
        if (last !== CR || keepCr) out[written++] = CR
        out[written++] = LF
        start = end + 1
      }
      return written - at
    },
    count(length, previous, keepCr) {
      const piece = input.subarray(0, length)
      let octets = length
      for (let end = piece.indexOf(LF); end >= 0; end = piece.indexOf(LF, end + 1)) {
        if (keepCr || (end === 0 ? previous : piece[end - 1]) !== CR) octets += 1
      }
      return octets
    },
  }
  return [slot]
}
