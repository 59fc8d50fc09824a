import { randomBytes, randomFillSync, timingSafeEqual } from 'node:crypto'
import type { SecureContext } from 'node:tls'
import { answerTicketKeys, type TicketKeyAnswer } from '../base/node-internals.ts'

/** Keys of TLS session tickets, newest first; hexadecimal, so that a parent can send them to its workers. */
export type TicketKeys = readonly string[]

const [NAME, HMAC, AES] = [16, 16, 16]
/** The newest key makes tickets, the older ones still open them. */
const KEYS_KEPT = 3

/** Puts a fresh key before the others (at start, at each reload and each 12 hours; spec/sslwrap.md §5). */
export const rotateTicketKeys = (keys: TicketKeys = []): TicketKeys => [
  randomBytes(NAME + HMAC + AES).toString('hex'),
  ...keys.slice(0, KEYS_KEPT - 1),
]

type Key = { readonly name: Buffer; readonly hmac: Buffer; readonly aes: Buffer }

/** Keys that contexts share and that can be changed while they serve. */
export class TicketKeyRing {
  #keys: readonly Key[] = []

  constructor(keys: TicketKeys) {
    this.replace(keys)
  }

  /** Takes new keys. Throws a TypeError if there is none, or if one is not 48 octets in hexadecimal. */
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
   * Makes a context use the ring: tickets of older keys are accepted, and every resumed connection
   * gets a fresh ticket, as
   * RFC 8446 appendix C.4 wants.
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

  /**
   * Status 2 makes OpenSSL issue a fresh ticket; 0 stands for an unknown ticket, after which a full
   * handshake follows.
   */
  #open(name: Buffer): TicketKeyAnswer {
    const key = this.#keys.find(known => timingSafeEqual(known.name, name))
    return key === undefined ? [0, NO_KEY, NO_KEY] : [2, key.hmac, key.aes]
  }
}

const NO_KEY = Buffer.alloc(16)

/** Random numbers cost less by the page. */
const page = Buffer.alloc(4096)
let used = page.length

function freshVector(): Buffer {
  if (used === page.length) {
    randomFillSync(page)
    used = 0
  }
  used += 16
  return page.subarray(used - 16, used)
}
