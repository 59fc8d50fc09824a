import { expect, test } from 'vitest'
import { compiledLineEncoder, compileLineEncoder } from '../../../scripts/line-encoder-module.ts'

test('the compiled line encoder is that of its source: node scripts/line-encoder-module.ts', async () => {
  expect(compiledLineEncoder()).toBe(await compileLineEncoder())
})
