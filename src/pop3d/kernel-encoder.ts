import { type LineEncoder, MAX_EXPANSION } from './line-endings.ts'
import { LINE_KERNEL } from './line-kernel.ts'
import { assemble } from './wasm-assembler.ts'

const PAGE = 65_536

/** What the kernel's loads and stores may touch beyond the octets they are asked for. */
const MARGIN = 64

type Encode = (input: number, length: number, output: number, previous: number, keepCr: number) => number
type Count = (input: number, length: number, previous: number, keepCr: number) => number

/** The encoder as a SIMD kernel; undefined where the runtime has no WebAssembly, or none with SIMD. */
export function createKernelEncoder(maxInput: number): LineEncoder | undefined {
  const inputAt = 0
  const outputAt = maxInput + MARGIN
  const pages = Math.ceil((outputAt + maxInput * MAX_EXPANSION + MARGIN) / PAGE)
  const exports = instantiate(pages)
  if (exports === undefined) return undefined
  const { memory, encode, count } = exports
  const octets = new Uint8Array(memory.buffer)
  const put = (input: Uint8Array): void => {
    if (input.length > maxInput) throw new RangeError(`${input.length} octets at once, ${maxInput} at most`)
    octets.set(input, inputAt)
  }
  return {
    maxInput,
    encode(input, previous, keepCr) {
      put(input)
      const length = encode(inputAt, input.length, outputAt, previous, keepCr ? 1 : 0)
      return octets.subarray(outputAt, outputAt + length)
    },
    count(input, previous, keepCr) {
      put(input)
      return input.length + count(inputAt, input.length, previous, keepCr ? 1 : 0)
    },
  }
}

function instantiate(pages: number): { memory: WebAssembly.Memory; encode: Encode; count: Count } | undefined {
  if (typeof WebAssembly === 'undefined') return undefined
  const binary = assemble(LINE_KERNEL, pages)
  if (!WebAssembly.validate(binary)) return undefined
  const { memory, encode, count } = new WebAssembly.Instance(new WebAssembly.Module(binary)).exports
  if (!(memory instanceof WebAssembly.Memory) || typeof encode !== 'function' || typeof count !== 'function') {
    throw new TypeError('the kernel exports other things than it declares')
  }
  return {
    memory,
    encode: (...args) => Number(encode(...args)),
    count: (...args) => Number(count(...args)),
  }
}
