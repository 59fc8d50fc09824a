import { CR, DOT, LF, type LineEncoder, MAX_EXPANSION } from './line-endings.ts'

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
