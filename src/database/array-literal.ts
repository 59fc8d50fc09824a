import type { ArrayElement } from './statement.ts'

/**
 * An array as the text that PostgreSQL reads (manual, section 8.15). pg would look at every element
 * several times, and the
 * arrays of a batch are most of what authd sends.
 */
export function arrayLiteral(elements: readonly ArrayElement[]): string {
  let text = '{'
  for (const element of elements) {
    if (text.length > 1) text += ','
    text += typeof element === 'string' ? quoted(element) : element instanceof Date ? element.toISOString() : element
  }
  return `${text}}`
}

const quoted = (element: string): string =>
  `"${element.includes('"') || element.includes('\\') ? element.replaceAll(/["\\]/g, String.raw`\$&`) : element}"`
