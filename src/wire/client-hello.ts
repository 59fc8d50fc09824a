/** The first message of a TLS client (RFC 8446 §4.1.2), read before the handshake. */

/** The parts of the message that decide the certificate and the protocol. */
export type ClientHello = {
  /**
   * Server name (RFC 6066 §3), lower case, without a final dot; undefined if the client names none,
   * or no DNS name.
   */
  readonly servername: string | undefined
  /** Application protocols that the client offers (RFC 7301), in its order. */
  readonly alpn: readonly string[]
}

/**
 * `more`: a valid beginning. `plain`: not TLS. `hello`: enough was read. A TLS message that this
 * parser cannot read is a `hello` without requests; the TLS library answers it with an alert.
 */
export type ClientHelloParse =
  | { readonly kind: 'more' }
  | { readonly kind: 'plain' }
  | { readonly kind: 'hello'; readonly hello: ClientHello }

/**
 * Maximum number of octets that are parsed; a hello with post-quantum key shares has about 1,800
 * octets.
 */
export const CLIENT_HELLO_MAX_OCTETS = 16_384

const HANDSHAKE_RECORD = 0x16
const CLIENT_HELLO = 0x01
const SERVER_NAME = 0
const HOST_NAME = 0
const ALPN = 16
const NOTHING: ClientHelloParse = { kind: 'hello', hello: { servername: undefined, alpn: [] } }

/** True for bytes that begin like the first message of a TLS client (RFC 8446 §5.1). */
export const beginsLikeTls = ([first, major]: Uint8Array): boolean => first === HANDSHAKE_RECORD && major === 3

/** Parses the first bytes of a connection. Call it with all bytes so far. Never throws. */
export function parseClientHello(bytes: Uint8Array): ClientHelloParse {
  const [first, major] = bytes
  if (first === undefined) return { kind: 'more' }
  if (first !== HANDSHAKE_RECORD || (major !== undefined && major !== 3)) return { kind: 'plain' }
  const message = handshakeBytes(bytes)
  if (message === undefined) return NOTHING
  const [type, high = 0, middle = 0, low = 0] = message
  if (type !== undefined && type !== CLIENT_HELLO) return NOTHING
  const length = high * 65_536 + middle * 256 + low
  if (length > CLIENT_HELLO_MAX_OCTETS) return NOTHING
  if (message.length < 4 + length) return bytes.length > CLIENT_HELLO_MAX_OCTETS ? NOTHING : { kind: 'more' }
  const hello = readHello(new Reader(message.subarray(4, 4 + length)))
  return hello === undefined ? NOTHING : { kind: 'hello', hello }
}

/**
 * The handshake bytes of all records so far, the last one perhaps incomplete; undefined if a record
 * of another kind lies among them.
 */
function handshakeBytes(bytes: Uint8Array): Uint8Array | undefined {
  const parts: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] !== HANDSHAKE_RECORD) return undefined
    const record = recordAt(bytes, at)
    if (record === undefined) break
    // A client could send empty records without end.
    if (record.next === at + 5) return undefined
    parts.push(record.body)
    at = record.next
  }
  return Buffer.concat(parts)
}

function recordAt(bytes: Uint8Array, at: number): { readonly body: Uint8Array; readonly next: number } | undefined {
  if (bytes.length < at + 5) return undefined
  const next = at + 5 + (bytes[at + 3] ?? 0) * 256 + (bytes[at + 4] ?? 0)
  return { body: bytes.subarray(at + 5, next), next }
}

function readHello(reader: Reader): ClientHello | undefined {
  reader.skip(2 + 32)
  reader.skip(reader.number(1))
  reader.skip(reader.number(2))
  reader.skip(reader.number(1))
  const end = reader.vectorEnd(2)
  let servername: string | undefined
  let alpn: readonly string[] = []
  while (reader.isBefore(end)) {
    const type = reader.number(2)
    const next = reader.vectorEnd(2, end)
    if (type === SERVER_NAME) servername = readServerName(reader, next)
    else if (type === ALPN) alpn = readAlpn(reader, next)
    reader.jump(next)
  }
  return reader.failed ? undefined : { servername, alpn }
}

function readServerName(reader: Reader, limit: number): string | undefined {
  const end = reader.vectorEnd(2, limit)
  while (reader.isBefore(end)) {
    const type = reader.number(1)
    const name = reader.text(2, end)
    if (type === HOST_NAME)
      return /^[a-z0-9_.-]{1,254}$/i.test(name) ? name.toLowerCase().replace(/\.$/, '') : undefined
  }
  return undefined
}

function readAlpn(reader: Reader, limit: number): readonly string[] {
  const end = reader.vectorEnd(2, limit)
  const names: string[] = []
  while (reader.isBefore(end)) names.push(reader.text(1, end))
  return names
}

/**
 * Reads numbers and vectors in network byte order. Past the end it reads zeros or less, and records
 * that it failed.
 */
class Reader {
  readonly #bytes: Buffer
  #at = 0
  failed = false

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  isBefore(end: number): boolean {
    return !this.failed && this.#at < end
  }

  skip(octets: number): void {
    this.jump(this.#at + octets)
  }

  jump(to: number): void {
    if (to > this.#bytes.length) this.failed = true
    else this.#at = to
  }

  number(octets: 1 | 2): number {
    const at = this.#at
    this.skip(octets)
    const first = this.#bytes[at] ?? 0
    return octets === 1 ? first : first * 256 + (this.#bytes[at + 1] ?? 0)
  }

  /** Reads the length of a vector, in `lengthOctets` octets. Returns its end, at most `limit`. */
  vectorEnd(lengthOctets: 1 | 2, limit = this.#bytes.length): number {
    const length = this.number(lengthOctets)
    if (this.#at + length > limit) this.failed = true
    return this.#at + length
  }

  /** Reads a vector as text. Its length, in `lengthOctets` octets, precedes it. */
  text(lengthOctets: 1 | 2, limit: number): string {
    const end = this.vectorEnd(lengthOctets, limit)
    const text = this.#bytes.toString('latin1', this.#at, end)
    this.#at = end
    return text
  }
}
