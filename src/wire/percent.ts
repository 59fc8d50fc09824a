/** Percent-encodes the UTF-8 octets of everything outside `[A-Za-z0-9._-]`: the result holds no space, `=` or control. */
export function percentEncode(text: string): string {
  if (PLAIN.test(text)) return text
  const encoded = encodeURIComponent(text.toWellFormed())
  return KEPT.test(encoded) ? encoded.replace(EACH_KEPT, percentOf) : encoded
}

const PLAIN = /^[A-Za-z0-9._-]*$/
/** What encodeURIComponent leaves as it is and we do not. */
const KEPT = /[!'()*~]/
const EACH_KEPT = /[!'()*~]/g
const percentOf = (mark: string): string => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`

/** Inverse of percentEncode; undefined for a stray `%` or octets that are not UTF-8. */
export function percentDecode(text: string): string | undefined {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined // the one thing decodeURIComponent throws for is malformed input
  }
}
