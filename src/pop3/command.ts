/** POP3 command lines: their limits, and parsing a line. */

/**
 * Longest command line in octets, with CRLF. RFC 2449 §4 requires at least 255; spec/popup.md §2.
 */
export const COMMAND_LINE_LIMIT = 512

/**
 * Longest SASL response line in octets, with CRLF. RFC 5034 §4 leaves the length to the mechanism;
 * spec/popup.md §2.
 */
export const SASL_LINE_LIMIT = 12_288

/** One command line: the verb in upper case, and the argument as sent. One character per octet. */
export interface Pop3Command {
  readonly verb: string
  readonly argument: string
  /** Text behind the first SPACE: the argument with the spaces before it. */
  readonly afterSpace: string
}

/**
 * Parses a command line (spec/popup.md §2). The verb is the text before the first SPACE, without
 * regard to the case of ASCII letters. Spaces behind the verb are skipped. The argument keeps its
 * inner and trailing spaces. A line that begins with a space has an empty verb.
 */
export function parseCommand(line: string): Pop3Command {
  const space = line.indexOf(' ')
  if (space < 0) return { verb: upperCaseAscii(line), argument: '', afterSpace: '' }
  let start = space + 1
  while (line[start] === ' ') start += 1
  return { verb: upperCaseAscii(line.slice(0, space)), argument: line.slice(start), afterSpace: line.slice(space + 1) }
}

/**
 * Converts a to z only. `toUpperCase` also maps other letters to ASCII letters, so two verbs could
 * become one.
 */
export const upperCaseAscii = (text: string): string =>
  // Most clients send upper case, so test before replacing.
  HAS_LOWER_CASE.test(text) ? text.replace(LOWER_CASE, letters => letters.toUpperCase()) : text

const HAS_LOWER_CASE = /[a-z]/
const LOWER_CASE = /[a-z]+/g
