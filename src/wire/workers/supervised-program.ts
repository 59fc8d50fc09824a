/**
 * Messages between `auth-relay up` and its programs: the report of a start, the order to reload.
 */
import * as v from 'valibot'
import { readMessage } from './control-channel.ts'

const report = v.variant('type', [
  /** The program serves. The text is that of its ready line. */
  v.strictObject({ type: v.literal('ready'), text: v.pipe(v.string(), v.maxLength(16_384)) }),
  /** The program could not start. One line for each fault. */
  v.strictObject({
    type: v.literal('faults'),
    lines: v.pipe(v.array(v.pipe(v.string(), v.maxLength(65_536))), v.maxLength(200)),
  }),
])

/** From the program. */
export type StartReport = v.InferOutput<typeof report>

/** Reads a message of a program; undefined if it is invalid. */
export const parseStartReport = (message: unknown): StartReport | undefined => readMessage(report, message)

const order = v.strictObject({ type: v.literal('reload'), files: v.record(v.string(), v.string()) })

/**
 * To the program. `files`: the text of the settings file and the secrets of secret files, by path.
 * The supervisor reads them, because the program cannot read them again after it drops root.
 */
export type ReloadOrder = v.InferOutput<typeof order>

/** Reads a message of the supervisor; undefined if it is invalid. */
export const parseReloadOrder = (message: unknown): ReloadOrder | undefined => readMessage(order, message)
