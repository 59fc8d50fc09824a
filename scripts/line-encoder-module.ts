import { readFileSync, writeFileSync } from 'node:fs'
import createWabt from 'wabt'

const directory = new URL('../src/pop3d/encoding/', import.meta.url)
const SOURCE = new URL('line-encoder.wat', directory)
const MODULE = new URL('line-encoder-module.ts', directory)

/**
 * Text of the TypeScript module that holds the compiled line encoder. Throws an Error with line and
 * column for a fault in the source.
 */
export async function compileLineEncoder(): Promise<string> {
  const wabt = await createWabt()
  const parsed = wabt.parseWat('line-encoder.wat', readFileSync(SOURCE, 'utf8'), { simd: true })
  try {
    parsed.validate()
    const { buffer } = parsed.toBinary({})
    const lines =
      Buffer.from(buffer)
        .toString('base64')
        .match(/.{1,100}/g) ?? []
    return `// Made from line-encoder.wat by scripts/line-encoder-module.ts. Do not edit.

/** The line encoder as a WebAssembly module, in base64. */
export const LINE_ENCODER_MODULE =
${lines.map(line => `  '${line}'`).join(' +\n')}
`
  } finally {
    parsed.destroy()
  }
}

/** The module as it is on disk; empty if there is none. */
export function compiledLineEncoder(): string {
  try {
    return readFileSync(MODULE, 'utf8')
  } catch {
    return '' // not compiled yet
  }
}

if (import.meta.main) writeFileSync(MODULE, await compileLineEncoder())
