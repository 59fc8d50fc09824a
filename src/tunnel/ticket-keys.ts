import { randomBytes, randomFillSync, timingSafeEqual } from 'node:crypto'
import type { SecureContext } from 'node:tls'

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
   * Makes a context use the ring: tickets of older keys are honoured, and every resumed connection gets a fresh ticket, as RFC 8446
   * appendix C.4 wants. The runtime has no public way to that (its ticketKeys option renews nothing), so its own hook for it is used
   * where there is one; elsewhere the newest key serves alone.
   */
  attach(context: SecureContext): void {
    const native: unknown = context.context
    if (typeof native !== 'object' || native === null) return
    const enable: unknown = Reflect.get(native, 'enableTicketKeyCallback')
    if (typeof enable === 'function') {
      Reflect.set(native, 'onticketkeycallback', (name: Buffer, _iv: Buffer, isNew: boolean) =>
        isNew ? this.#seal() : this.#open(name),
      )
      Reflect.apply(enable, native, [])
      return
    }
    const set: unknown = Reflect.get(native, 'setTicketKeys')
    const [newest] = this.#keys
    if (typeof set === 'function' && newest !== undefined) {
      Reflect.apply(set, native, [Buffer.concat([newest.name, newest.hmac, newest.aes])])
    }
  }

  #seal(): unknown[] {
    const [newest] = this.#keys
    if (newest === undefined) return [-1]
    return [1, newest.hmac, newest.aes, newest.name, freshVector()]
  }

  /** 2 asks OpenSSL for a fresh ticket; 0 is a ticket of nobody's, and a full handshake follows (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)). */
  #open(name: Buffer): unknown[] {
    const key = this.#keys.find(known => timingSafeEqual(known.name, name))
    return key === undefined ? [0, NOBODY, NOBODY] : [2, key.hmac, key.aes]
  }
}

const NOBODY = Buffer.alloc(16)

/** Random numbers are cheaper by the page. */
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
