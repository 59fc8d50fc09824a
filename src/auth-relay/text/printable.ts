/**
 * Text from outside as it may stand on a terminal: control, format and unassigned characters are
 * written as `\u{…}`, so that no login
 * name can move the cursor or forge a line.
 */
export const printable = (text: string): string =>
  text.replace(/[\\\p{C}\u2028\u2029]/gu, character =>
    character === '\\' ? '\\\\' : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )

/** `1 grant`, `2 grants`: a number with its noun. */
export const count = (number: number, one: string, many = `${one}s`): string => `${number} ${number === 1 ? one : many}`
