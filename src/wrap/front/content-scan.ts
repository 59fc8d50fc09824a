/** The front's scan of message content in WebAssembly, and its memory. */
import { compileWasmModule, type WasmInstance } from '../../base/web-assembly.ts'
import { type PlainScan, scanNothing } from '../../smtp/content.ts'
import { CONTENT_SCAN_MODULE } from './content-scan-module.ts'

/** Octets that the scan reads together. */
const BLOCK = 16
/** Octets of one scan. */
const PIECE_OCTETS = 65_536

/**
 * Scans content sixteen octets at a time (content-scan.wat). Reading octet by octet takes longer
 * than all other work of the front with a message. Finds nothing if the runtime has no WebAssembly,
 * or none with SIMD.
 */
export const scanContent: PlainScan = makeScan()

function makeScan(): PlainScan {
  const makeInstance = compileWasmModule(CONTENT_SCAN_MODULE)
  if (makeInstance === undefined) return scanNothing
  let scan: PlainScan | undefined
  return (input, at, before) => {
    scan ??= scanIn(makeInstance(BLOCK + PIECE_OCTETS))
    return scan(input, at, before)
  }
}

/** All sessions use one memory, because it holds nothing between two calls. */
function scanIn({ memory, exported }: WasmInstance): PlainScan {
  const octets = new Uint8Array(memory)
  const plain = exported('plain')
  return (input, at, before) => {
    const length = Math.min(input.length - at, PIECE_OCTETS)
    octets[BLOCK - 1] = before
    octets.set(input.subarray(at, at + length), BLOCK)
    return plain(BLOCK, length)
  }
}
