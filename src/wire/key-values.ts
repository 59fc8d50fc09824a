/** Lines of `key=value`, and the percent-encoding that keeps a value free of spaces. */

/**
 * Percent-encodes the UTF-8 octets of all characters outside `[A-Za-z0-9._-]`, so that the result
 * contains no space, `=` or control character.
 */
export function percentEncode(text: string): string {
  if (/^[\w.-]*$/.test(text)) return text
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*~]/g,
    mark => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

/** Percent-encodes a path like percentEncode, but keeps `/`. */
export const percentEncodePath = (path: string): string =>
  /^[\w./-]*$/.test(path) ? path : path.split('/').map(percentEncode).join('/')

/**
 * Percent-encodes the UTF-8 octets of all characters that are not printable ASCII, and cuts the
 * result at `limit` octets. The cut leaves no half of an encoded octet. For texts for people.
 */
export function printableAscii(text: string, limit: number): string {
  const encoded = text.replace(/[^\x20-\x7e]+/g, characters =>
    Buffer.from(characters).toString('hex').toUpperCase().replace(/../g, '%$&'),
  )
  return encoded.length <= limit ? encoded : encoded.slice(0, limit).replace(/%.?$/, '')
}

/**
 * Inverse of percentEncode and percentEncodePath; undefined for an invalid `%` or invalid UTF-8.
 */
export function percentDecode(text: string): string | undefined {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined // decodeURIComponent throws only for malformed input
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
