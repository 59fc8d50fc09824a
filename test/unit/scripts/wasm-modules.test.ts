import { expect, test } from 'vitest'
import { compiledWasm, compileWasm, wasmSources } from '../../../scripts/wasm-modules.ts'

test.for(wasmSources)('%s agrees with its source (else: node scripts/wasm-modules.ts)', async source => {
  expect(compiledWasm(source)).toBe(await compileWasm(source))
})
