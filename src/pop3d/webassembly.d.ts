/** The part of WebAssembly that the kernel uses: the compiler knows it only with the types of a browser. */
declare namespace WebAssembly {
  class Module {
    constructor(binary: Uint8Array<ArrayBuffer>)
  }
  class Instance {
    readonly exports: Readonly<Record<string, unknown>>
    constructor(module: Module)
  }
  class Memory {
    readonly buffer: ArrayBuffer
  }
  function validate(binary: Uint8Array<ArrayBuffer>): boolean
}
