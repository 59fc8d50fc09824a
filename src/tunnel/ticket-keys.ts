/**
 * Keys of TLS session tickets. A parent makes the keys and sends them to its workers, which connect
 * them to their TLS contexts.
 */
import { randomBytes, randomFillSync, timingSafeEqual } from 'node:crypto'
import type { SecureContext } from 'node:tls'
import { answerTicketKeys, type TicketKeyAnswer } from '../base/node-internals.ts'

/**
 * Keys of TLS session tickets, newest first, in hexadecimal, so that a parent can send them to its
 * workers.
 */
export type TicketKeys = readonly string[]

/** Octets of the parts of a key: its name, the HMAC key and the AES key. */
const [NAME, HMAC, AES] = [16, 16, 16]
/** The newest key encrypts tickets; all keys decrypt them. */
const KEYS_KEPT = 3

/**
 * Returns a new key followed by the newest of the others. The caller does this at start, at each
 * reload and every 12 hours (spec/sslwrap.md §5).
 */
export const rotateTicketKeys = (keys: TicketKeys = []): TicketKeys => [
  randomBytes(NAME + HMAC + AES).toString('hex'),
  ...keys.slice(0, KEYS_KEPT - 1),
]

type Key = { readonly name: Buffer; readonly hmac: Buffer; readonly aes: Buffer }

/** Keys that several contexts share and that can change while the contexts serve. */
export class TicketKeyRing {
  #keys: readonly Key[] = []

  constructor(keys: TicketKeys) {
    this.replace(keys)
  }

  /**
   * Replaces the keys. Throws a TypeError without a key, or if a key is not 48 octets in
   * hexadecimal.
   */
  replace(keys: TicketKeys): void {
    if (keys.length === 0 || !keys.every(key => /^[0-9a-f]{96}$/.test(key))) throw new TypeError('bad ticket keys')
    this.#keys = keys.map(key => {
      const bytes = Buffer.from(key, 'hex')
      return {
        name: bytes.subarray(0, NAME),
        hmac: bytes.subarray(NAME, NAME + HMAC),
        aes: bytes.subarray(NAME + HMAC),
      }
    })
  }

  /**
   * Connects a context to the ring. The context accepts tickets of older keys and sends a new
   * ticket on every resumed connection (RFC 8446 appendix C.4).
   */
  attach(context: SecureContext): void {
    answerTicketKeys(
      context,
      (name, isNew) => (isNew ? this.#seal() : this.#open(name)),
      () => {
        const [newest] = this.#keys
        return newest === undefined ? undefined : Buffer.concat([newest.name, newest.hmac, newest.aes])
      },
    )
  }

  #seal(): TicketKeyAnswer {
    const [newest] = this.#keys
    if (newest === undefined) return [-1]
    return [1, newest.hmac, newest.aes, newest.name, freshVector()]
  }

  /** Status 2: OpenSSL also issues a new ticket. Status 0: unknown ticket, so a full handshake. */
  #open(name: Buffer): TicketKeyAnswer {
    const key = this.#keys.find(known => timingSafeEqual(known.name, name))
    return key === undefined ? [0, NO_KEY, NO_KEY] : [2, key.hmac, key.aes]
  }
}

const NO_KEY = Buffer.alloc(16)

/** Random octets. One call for 4,096 octets costs less than many calls for 16. */
const page = Buffer.alloc(4096)
let used = page.length

/** Returns 16 random octets, the initialization vector of a ticket. */
function freshVector(): Buffer {
  if (used === page.length) {
    randomFillSync(page)
    used = 0
  }
  used += 16
  return page.subarray(used - 16, used)
}
