/** TLS contexts of a listener: versions, ciphers, certificates, and the keys of session tickets. */
import { constants, randomBytes, randomFillSync, timingSafeEqual } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { answerTicketKeys, type TicketKeyAnswer } from '../base/node-internals.ts'
import { type Certificate, coversName } from './certificate.ts'

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

export type TlsPolicy = {
  /**
   * `modern`: TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers. `old`: TLS 1.0 and 1.1 too,
   * for listed networks only.
   */
  readonly versions: 'modern' | 'old'
  /** OpenSSL cipher list for TLS 1.2 and older. Undefined: a default for `versions`. */
  readonly ciphers?: string | undefined
  /**
   * PEM of the authorities for client certificates. Undefined: no client certificate is requested.
   */
  readonly clientCa?: string | undefined
  /** Seconds for which a ticket can resume a session. Default: 7,200. */
  readonly ticketLifetime?: number | undefined
}

const MODERN_CIPHERS = [
  ...['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'],
  ...['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256'],
  ...['ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384'],
  ...['ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305'],
].join(':')

/** One tuple: a client with a key share of any of these groups needs no second round trip. */
const MODERN_GROUPS = 'X25519MLKEM768:X25519:prime256v1:secp384r1'

/** OpenSSL 3 requires security level 0 for the SHA-1 signatures of TLS 1.0 and 1.1. */
const OLD_CIPHERS = 'DEFAULT:!aNULL:!eNULL:!EXPORT:!RC4:!MD5:@SECLEVEL=0'

/**
 * Contexts for all certificates of a listener, one for each set of names. Certificates of the same
 * names and different key types share a context.
 */
export class TlsContexts {
  readonly #entries: readonly { readonly names: readonly string[]; readonly context: SecureContext }[]
  readonly #fallback: SecureContext

  /**
   * The first certificate serves clients that name no server or an unknown one. Throws if OpenSSL
   * refuses a certificate or the policy.
   */
  constructor(certificates: readonly Certificate[], policy: TlsPolicy, tickets: TicketKeyRing) {
    const groups = Map.groupBy(certificates, ({ names }) => names.toSorted().join())
    this.#entries = [...groups.values()].map(group => {
      const context = createContext(onePerKeyType(group), policy)
      tickets.attach(context)
      return { names: group[0]?.names ?? [], context }
    })
    const [first] = this.#entries
    if (first === undefined) throw new TypeError('a TLS listener needs a certificate')
    this.#fallback = first.context
  }

  /**
   * Returns the context for a server name in lower case (parseClientHello). An exact name precedes
   * a wildcard.
   */
  select(servername: string | undefined): SecureContext {
    if (servername === undefined || this.#entries.length === 1) return this.#fallback
    const exact = this.#entries.find(({ names }) => names.includes(servername))
    return (exact ?? this.#entries.find(({ names }) => coversName(names, servername)))?.context ?? this.#fallback
  }
}

/** OpenSSL keeps the last certificate of a key type, but the first one of the settings must win. */
const onePerKeyType = (group: readonly Certificate[]): readonly Certificate[] => [
  ...new Map(group.toReversed().map(certificate => [certificate.keyType, certificate])).values(),
]

function createContext(certificates: readonly Certificate[], policy: TlsPolicy): SecureContext {
  const { SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_COMPRESSION, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_PRIORITIZE_CHACHA } =
    constants
  return createSecureContext({
    cert: certificates.map(({ cert }) => cert),
    key: certificates.map(({ key }) => key),
    minVersion: policy.versions === 'old' ? 'TLSv1' : 'TLSv1.2',
    maxVersion: 'TLSv1.3',
    ciphers: policy.ciphers ?? (policy.versions === 'old' ? OLD_CIPHERS : MODERN_CIPHERS),
    ecdhCurve: policy.versions === 'old' ? 'auto' : MODERN_GROUPS,
    secureOptions:
      SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA,
    // Workers can resume the sessions of other workers only if this value is the same in all.
    sessionIdContext: 'auth-relay',
    sessionTimeout: policy.ticketLifetime ?? 7200,
    ...(policy.clientCa === undefined ? {} : { ca: policy.clientCa }),
  })
}
