/** Runs modules of WebAssembly that this project compiles (scripts/wasm-modules.ts). */

/**
 * The part of WebAssembly that is used here: the compiler has it only with the types of a browser.
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

const PAGE_OCTETS = 65_536

export type WasmInstance = {
  readonly memory: ArrayBuffer
  /** A function that the module exports. Throws TypeError if there is none of this name. */
  readonly exported: (name: string) => (...args: readonly number[]) => number
}

/**
 * Compiles a module in base64 that imports `host.memory`. The result makes an instance whose memory
 * has at least this number of octets. It throws RangeError if the system gives no memory. Undefined
 * if the runtime has no WebAssembly, or none with SIMD.
 */
export function compileWasmModule(base64: string): ((octets: number) => WasmInstance) | undefined {
  if (typeof WebAssembly === 'undefined') return undefined
  const binary = Uint8Array.from(Buffer.from(base64, 'base64'))
  if (!WebAssembly.validate(binary)) return undefined
  const module = new WebAssembly.Module(binary)
  return octets => {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(octets / PAGE_OCTETS) })
    const { exports } = new WebAssembly.Instance(module, { host: { memory } })
    return {
      memory: memory.buffer,
      exported: name => {
        const call = exports[name]
        if (typeof call !== 'function') throw new TypeError(`the module of WebAssembly exports no function ${name}`)
        return (...args) => Number(call(...args))
      },
    }
  }
}
