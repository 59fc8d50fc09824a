/**
 * Percent-encodes the UTF-8 octets of everything outside `[A-Za-z0-9._-]`: the result holds no
 * space, `=` or control.
 */
export function percentEncode(text: string): string {
  if (/^[\w.-]*$/.test(text)) return text
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*~]/g,
    mark => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

/** The same for a path, whose `/` stay. */
export const percentEncodePath = (path: string): string =>
  /^[\w./-]*$/.test(path) ? path : path.split('/').map(percentEncode).join('/')

/** Inverse of both; undefined for a stray `%` or octets that are not UTF-8. */
export function percentDecode(text: string): string | undefined {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined // the one thing decodeURIComponent throws for is malformed input
  }
}

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
