/**
 * Splits `a=1 b=2` into a map: single spaces, keys `[a-z_]+`, values without space, no key twice.
 * Undefined if the text has any other shape.
 */
export function parseKeyValues(text: string): ReadonlyMap<string, string> | undefined {
  const pairs = new Map<string, string>()
  for (const word of text.split(' ')) {
    const equals = word.indexOf('=')
    const key = word.slice(0, equals)
    if (equals < 1 || !/^[a-z_]{1,32}$/.test(key) || pairs.has(key)) return undefined
    pairs.set(key, word.slice(equals + 1))
  }
  return pairs
}
