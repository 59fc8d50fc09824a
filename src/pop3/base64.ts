const STRICT = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** Decodes base64 to one character per octet; undefined for a foreign character or a misplaced `=` (RFC 5034 §4). */
export function decodeBase64(text: string): string | undefined {
  return STRICT.test(text) ? Buffer.from(text, 'base64').toString('latin1') : undefined
}
