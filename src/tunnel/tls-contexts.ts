/** TLS contexts of a listener: versions, ciphers and certificates. */
import { constants } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { type Certificate, coversName } from './certificate.ts'
import type { TicketKeyRing } from './ticket-keys.ts'

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
