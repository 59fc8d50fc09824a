/**
 * Messages between a supervised daemon and its supervisor on the control channel: the report of a
 * start, and the order to reload.
 */

import { writeSync } from 'node:fs'
import * as v from 'valibot'

/**
 * The report of a supervised program about its start: the text of its ready line, or its faults,
 * one line each.
 */
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
    // The supervisor has ended, and this program ends with it.
  }
}

/**
 * Texts of files that a program cannot read again after it drops root, by path: the settings file,
 * and for a secret file the secret. The supervisor, which is still root, reads the files and sends
 * them with the order to reload.
 */
export type InheritedFiles = Readonly<Record<string, string>>

const reload = v.strictObject({ type: v.literal('reload'), files: v.record(v.string(), v.string()) })

/** The supervisor's order to reload, as it goes over the control channel. */
export const reloadOrder = (files: InheritedFiles): v.InferOutput<typeof reload> => ({ type: 'reload', files })

/** The files that come with an order to reload; undefined if the message is none. */
export function parseReloadOrder(message: unknown): InheritedFiles | undefined {
  const { success, output } = v.safeParse(reload, message)
  return success ? output.files : undefined
}

let inForce: ReadonlyMap<string, string> = new Map()

/**
 * The text that the supervisor sent for this path with the reload that is under way; undefined:
 * read the file.
 */
export const handedText = (path: string): string | undefined => inForce.get(path)

/**
 * Runs a reload that finds these texts in place of the files. They are forgotten afterwards. One
 * reload runs at a time.
 */
export async function withInheritedFiles<T>(files: InheritedFiles, run: () => Promise<T>): Promise<T> {
  inForce = new Map(Object.entries(files))
  try {
    return await run()
  } finally {
    inForce = new Map()
  }
}
