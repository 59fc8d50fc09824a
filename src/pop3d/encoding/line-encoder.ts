/**
 * Line ends and dots of message files as RFC 1939 §3 sends them.
 *
 * Each transfer takes an encoder for itself: memory for a piece of the file, and for two results,
 * so that one result can be written while the next is made. A kernel in WebAssembly encodes; where
 * the runtime has no WebAssembly with SIMD, a twin in JavaScript does. The encoders of the kernel
 * share the memory of one instance. Each memory of WebAssembly reserves ten gigabytes of address
 * space, so an instance for each transfer would reach the limits of a host (decision 12).
 */
import { compileWasmModule } from '../../base/web-assembly.ts'
import { LINE_ENCODER_MODULE } from './line-encoder-module.ts'

export const LF = 0x0a
export const CR = 0x0d
const DOT = 0x2e

/** Longest result in relation to its input. Reached if every octet is LF, or a dot after LF. */
const MAX_EXPANSION = 2
/** Octets of an output besides the longest result, for the first and the last line of a reply. */
export const REPLY_ROOM = 64

/**
 * Encodes octets of a message file for the wire: every line ends in CRLF, and a line that begins
 * with a dot gets a second dot (RFC 1939 §3). All other octets stay unchanged. A CR before LF
 * becomes part of CRLF; with `keepCr`, as in qmail, it is sent in addition to CRLF.
 */
export interface LineEncoder {
  /** Place for a piece of the file, of the length that the pool names. */
  readonly input: Buffer
  /** Places for results. The encoder writes only the octets that `encode` names. */
  readonly outputs: readonly [Buffer, Buffer]
  /**
   * Encodes the first `length` octets of `input` into an output from `at` on, and returns the
   * number of octets of the result. `at` is at most REPLY_ROOM / 2. `previous` is the octet before
   * the piece, or LF at the start of the file. The 16 octets of the output behind the result may
   * change too.
   */
  encode(length: number, previous: number, keepCr: boolean, output: 0 | 1, at: number): number
  /**
   * Returns the number of octets that `encode` would make without byte-stuffing: the message size
   * of RFC 1939 §11.
   */
  count(length: number, previous: number, keepCr: boolean): number
  /** Returns the memory to the pool. The transfer must not read or write it any more. */
  release(): void
}

/**
 * Returns the octets that complete the last line of a file. Empty for an empty file or one that
 * ends in LF.
 */
export const lineEndAfter = (previous: number, keepCr: boolean): string =>
  previous === LF ? '' : previous === CR && !keepCr ? '\n' : '\r\n'

/**
 * The encoders of a process, for pieces of up to `maxInput` octets. The pool grows to the number of
 * concurrent transfers.
 */
export class EncoderPool {
  readonly maxInput: number
  readonly #makeBlock: (maxInput: number) => readonly Slot[]
  readonly #blocks: Block[] = []

  /** `makeBlock` makes encoders: those of the kernel by default, otherwise those in JavaScript. */
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
          // After a peak of transfers only the first block is kept.
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
      // The address space has a limit (RLIMIT_AS). Encoders in JavaScript reserve none.
      if (error instanceof RangeError) return scriptBlock(this.maxInput)
      throw error
    }
  }
}

/** An encoder that does not belong to a pool yet. */
type Slot = Omit<LineEncoder, 'release'>
type Block = { readonly free: LineEncoder[]; size: number }

/** Octets that the kernel processes at a time. */
const BLOCK = 16
/** Encoders of one instance. The system provides their memory at first use. */
const SLOTS = 16

/** Makes encoders of the kernel. Undefined if the runtime has no WebAssembly, or none with SIMD. */
export const kernelBlock: ((maxInput: number) => readonly Slot[]) | undefined = kernelBlocks()

function kernelBlocks(): ((maxInput: number) => readonly Slot[]) | undefined {
  const makeInstance = compileWasmModule(LINE_ENCODER_MODULE)
  if (makeInstance === undefined) return undefined
  return maxInput => {
    const outputLength = maxInput * MAX_EXPANSION + REPLY_ROOM
    const slotLength = BLOCK + maxInput + BLOCK + 2 * outputLength
    const { memory, exported } = makeInstance(SLOTS * slotLength)
    const [encode, count] = [exported('encode'), exported('count')]
    const octets = new Uint8Array(memory)
    const view = (from: number, length: number): Buffer => Buffer.from(memory, from, length)
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
          return encode(inputAt, length, outputAt + output * outputLength + at, keepCr ? 1 : 0)
        },
        count(length, previous, keepCr) {
          prepare(length, previous)
          return length + count(inputAt, length, keepCr ? 1 : 0)
        },
      }
    })
  }
}

/**
 * Makes one encoder in JavaScript. It replaces the kernel, and the kernel must give the same
 * octets.
 */
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
