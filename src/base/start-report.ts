import { writeSync } from 'node:fs'
import * as v from 'valibot'

/** What a supervised program says of its start: what its ready line says, or its faults, one line each. */
const report = v.variant('type', [
  v.strictObject({ type: v.literal('ready'), text: v.pipe(v.string(), v.maxLength(16_384)) }),
  v.strictObject({
    type: v.literal('faults'),
    lines: v.pipe(v.array(v.pipe(v.string(), v.maxLength(65_536))), v.maxLength(200)),
  }),
])
export type StartReport = v.InferOutput<typeof report>

/** Reads a message of the control channel; undefined if it is another one. */
export function parseStartReport(message: unknown): StartReport | undefined {
  const { success, output } = v.safeParse(report, message)
  return success ? output : undefined
}

/** Writes the report to the control channel at once, because the program may end with this turn. */
export function sendStartReport(descriptor: number, said: StartReport): void {
  try {
    writeSync(descriptor, `${JSON.stringify(said)}\n`)
  } catch {
    // The supervisor is gone, and this program ends by that.
  }
}
