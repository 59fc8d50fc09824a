/** The control channel between a parent and a child: one message in JSON per line. */
import * as v from 'valibot'

/** Longest message, in octets without LF. Settings with PEM chains fit. */
export const MAX_MESSAGE = 1_048_576

/**
 * Messages that check whether the child is alive: the parent sends `ping`, and the child answers
 * `pong`.
 */
export const PING = 'ping'
export const PONG = 'pong'

/** The line of a message, LF included. */
export const formatMessage = (message: unknown): string => `${JSON.stringify(message)}\n`

/** The message of a line without LF; undefined if the line is not JSON. */
export function parseMessage(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

/** The message if it has the form of the schema; undefined for any other. */
export function readMessage<Output>(schema: v.GenericSchema<unknown, Output>, message: unknown): Output | undefined {
  const { success, output } = v.safeParse(schema, message, { abortEarly: true })
  return success ? output : undefined
}

/**
 * A message of the parent, which the child trusts.
 * @throws TypeError for another form, because then the two are not of one version. The text names
 * the field without its value, because the value may be a secret.
 */
export function requireMessage<Output>(schema: v.GenericSchema<unknown, Output>, message: unknown): Output {
  const { success, output, issues } = v.safeParse(schema, message, { abortEarly: true })
  if (success) return output
  const field = v.getDotPath(issues[0]) ?? 'type'
  throw new TypeError(`a message of the parent has an invalid field: ${field}: parent and child differ in version`)
}
