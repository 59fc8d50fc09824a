import { createKernelEncoder } from './kernel-encoder.ts'
import type { LineEncoder } from './line-endings.ts'
import { createScriptEncoder } from './script-encoder.ts'

/** The fastest encoder that this runtime has, for chunks of up to `maxInput` octets. */
export const createEncoder = (maxInput: number): LineEncoder =>
  createKernelEncoder(maxInput) ?? createScriptEncoder(maxInput)
