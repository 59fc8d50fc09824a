import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'

/**
 * HMAC-SHA256 (RFC 2104) of texts under one key. The key is prepared once, because createHmac takes
 * seven times as long with the octets of a key as with a KeyObject. Cannot be printed.
 */
export class KeyedHash {
  readonly #key: KeyObject

  constructor(key: Uint8Array) {
    this.#key = createSecretKey(key)
  }

  /** In lower-case hexadecimal. `text` has one character per octet. */
  hex(text: string): string {
    return createHmac('sha256', this.#key).update(text, 'latin1').digest('hex')
  }

  /** Compares with a hash in lower-case hexadecimal, in constant time. */
  matches(text: string, hex: string): boolean {
    const expected = this.hex(text)
    return (
      hex.length === expected.length && timingSafeEqual(Buffer.from(expected, 'latin1'), Buffer.from(hex, 'latin1'))
    )
  }
}
