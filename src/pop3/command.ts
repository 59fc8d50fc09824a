/** One command line: the verb in upper case, and the argument as it came. One character per octet. */
export interface Command {
  readonly verb: string
  readonly argument: string
  /** Everything after the one SPACE that ends the verb: the argument with the spaces before it. */
  readonly afterSpace: string
}

/**
 * Verb = everything up to the first SPACE, ASCII case-insensitive; the spaces after it are skipped; the argument is the
 * rest, inner and trailing spaces kept. A line that begins with a space has the empty verb. spec/popup.md §2.
 */
export function parseCommand(line: string): Command {
  const space = line.indexOf(' ')
  if (space < 0) return { verb: upperCaseAscii(line), argument: '', afterSpace: '' }
  let start = space + 1
  while (line[start] === ' ') start += 1
  return { verb: upperCaseAscii(line.slice(0, space)), argument: line.slice(start), afterSpace: line.slice(space + 1) }
}

/** Only a to z: `toUpperCase` would also turn other letters into ASCII ones, so that two verbs became one. */
export const upperCaseAscii = (text: string): string =>
  // Most clients shout.
  HAS_LOWER_CASE.test(text) ? text.replace(LOWER_CASE, letters => letters.toUpperCase()) : text

const HAS_LOWER_CASE = /[a-z]/
const LOWER_CASE = /[a-z]+/g
