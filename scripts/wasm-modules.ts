import { readFileSync, writeFileSync } from 'node:fs'
import createWabt from 'wabt'

/**
 * Sources in WebAssembly text, relative to the root. Each has a module of TypeScript beside it.
 */
const SOURCES = {
  'src/pop3d/encoding/line-encoder.wat': { constant: 'LINE_ENCODER_MODULE', title: 'The line encoder' },
  'src/wrap/front/content-scan.wat': { constant: 'CONTENT_SCAN_MODULE', title: 'The scan of message content' },
} as const

export type WasmSource = keyof typeof SOURCES

export const wasmSources: readonly WasmSource[] = [
  'src/pop3d/encoding/line-encoder.wat',
  'src/wrap/front/content-scan.wat',
]

const root = new URL('..', import.meta.url)
const moduleOf = (source: WasmSource): URL => new URL(source.replace(/\.wat$/, '-module.ts'), root)

/**
 * Text of the TypeScript module with the compiled source. Throws an Error with line and column if
 * the source is invalid.
 */
export async function compileWasm(source: WasmSource): Promise<string> {
  const wabt = await createWabt()
  const name = source.replace(/^.*\//, '')
  const parsed = wabt.parseWat(name, readFileSync(new URL(source, root), 'utf8'), { simd: true })
  try {
    parsed.validate()
    const { buffer } = parsed.toBinary({})
    const lines =
      Buffer.from(buffer)
        .toString('base64')
        .match(/.{1,100}/g) ?? []
    const { constant, title } = SOURCES[source]
    return `// Made from ${name} by scripts/wasm-modules.ts. Do not edit.

/** ${title} as a WebAssembly module, in base64. */
export const ${constant} =
${lines.map(line => `  '${line}'`).join(' +\n')}
`
  } finally {
    parsed.destroy()
  }
}

/** Text of the module on disk; empty if there is none. */
export function compiledWasm(source: WasmSource): string {
  try {
    return readFileSync(moduleOf(source), 'utf8')
  } catch {
    return '' // not compiled yet
  }
}

if (import.meta.main) for (const source of wasmSources) writeFileSync(moduleOf(source), await compileWasm(source))
