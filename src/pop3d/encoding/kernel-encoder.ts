import { LINE_ENCODER_MODULE } from './line-encoder-module.ts'
import { type EncoderLane, type LineEncoder, MAX_EXPANSION } from './line-endings.ts'
import { createScriptEncoder } from './script-encoder.ts'

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
