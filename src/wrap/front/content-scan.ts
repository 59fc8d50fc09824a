import { compileWasmModule, type WasmInstance } from '../../base/web-assembly.ts'
import { type PlainScan, scanNothing } from '../../smtp/content.ts'
import { CONTENT_SCAN_MODULE } from './content-scan-module.ts'

/** Octets that the scan looks at together. */
const BLOCK = 16
/** Octets of one scan. */
const PIECE = 65_536

/**
 * Scans content sixteen octets at a time (content-scan.wat), as octet by octet in script takes
 * longer than everything else that the front does with a message. Finds nothing plain where the
 * runtime has no WebAssembly, or none with SIMD.
 */
export const scanContent: PlainScan = makeScan()

function makeScan(): PlainScan {
  const makeInstance = compileWasmModule(CONTENT_SCAN_MODULE)
  if (makeInstance === undefined) return scanNothing
  let scan: PlainScan | undefined
  return (input, at, before) => {
    scan ??= scanIn(makeInstance(BLOCK + PIECE))
    return scan(input, at, before)
  }
}

/** The memory holds nothing after a call, so that all sessions use one. */
function scanIn({ memory, exported }: WasmInstance): PlainScan {
  const octets = new Uint8Array(memory)
  const plain = exported('plain')
  return (input, at, before) => {
    const length = Math.min(input.length - at, PIECE)
    octets[BLOCK - 1] = before
    octets.set(input.subarray(at, at + length), BLOCK)
    return plain(BLOCK, length)
  }
}
