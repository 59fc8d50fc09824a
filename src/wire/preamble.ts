/** Preambles: octets that a proxy sends before the client's. The SSL command, and PROXY headers. */
import { addressBytes, familyOf, type IpAddress, parseIpAddress, readAddress } from './ip-address.ts'

/** The data of the SSL command: the client's address, and the password of popup and the proxy. */
export type SslPreamble = { readonly host: IpAddress; readonly pass: string }

/** Longest SSL command in octets, with CRLF (spec/sslwrap.md §3). */
export const SSL_PREAMBLE_MAX_OCTETS = 255

/** True for a valid password: 1 to 200 printable ASCII characters, with spaces and colons. */
export const isPreamblePassword = (text: string): boolean => /^[\x20-\x7e]{1,200}$/.test(text)

/**
 * Formats the SSL command with its CRLF. An IPv6 address gets brackets. Throws TypeError, without
 * the password in its message, if the password is invalid.
 */
export function formatSslPreamble({ host, pass }: SslPreamble): string {
  if (!isPreamblePassword(pass)) throw new TypeError('the preamble password must be 1 to 200 printable ASCII bytes')
  return `SSL ${familyOf(host) === 6 ? `[${host}]` : host}:${pass}\r\n`
}

/**
 * Parses an SSL command without its line end. Undefined for another verb; `malformed` if the rest
 * is not `host:pass`. An IPv4 host ends at the first colon and one in brackets at its bracket,
 * because the password may contain colons (spec/sslwrap.md §3). The caller checks the password and
 * the peer.
 */
export function parseSslPreamble(line: string): SslPreamble | 'malformed' | undefined {
  if (!/^ssl(?: |$)/i.test(line)) return undefined
  if (line.length + 2 > SSL_PREAMBLE_MAX_OCTETS) return 'malformed'
  const bracketed = line[4] === '['
  const end = line.indexOf(bracketed ? ']:' : ':', 4)
  if (end < 0) return 'malformed'
  const text = line.slice(bracketed ? 5 : 4, end)
  const host = text.includes(':') === bracketed ? parseIpAddress(text) : undefined
  const pass = line.slice(end + (bracketed ? 2 : 1))
  return host === undefined || !isPreamblePassword(pass) ? 'malformed' : { host, pass }
}

/** One end of a TCP connection. */
export type Endpoint = { readonly ip: IpAddress; readonly port: number }

/**
 * A proxy's report of the TLS that it terminated (TLV 0x20). `verified`: the client sent a
 * certificate, and the proxy accepted it.
 */
export type ProxyTls = {
  readonly version?: string | undefined
  readonly cipher?: string | undefined
  readonly commonName?: string | undefined
  readonly verified: boolean
}

/** The fields of version 2 that this project uses. Other fields are skipped. */
export type ProxyFields = {
  readonly alpn?: string | undefined
  /** The server name that the client requested (SNI). */
  readonly authority?: string | undefined
  readonly uniqueId?: string | undefined
  readonly tls?: ProxyTls | undefined
}

/**
 * A PROXY header.
 *
 * - `proxied`: the ends of the client's connection.
 * - `unknown`: version 1 `UNKNOWN`, or version 2 without an IP address.
 * - `local`: a connection that the proxy makes for itself, such as a health check.
 */
export type ProxyHeader =
  | {
      readonly kind: 'proxied'
      readonly version: 1 | 2
      readonly source: Endpoint
      readonly destination: Endpoint
      readonly fields: ProxyFields
    }
  | { readonly kind: 'unknown'; readonly version: 1 | 2 }
  | { readonly kind: 'local'; readonly version: 2 }

/**
 * Result of parsing. `more`: the bytes are a valid beginning. At least `atLeast` bytes of the
 * header follow, so that reading them never reads past the header. `done`: the header has `length`
 * bytes; the client's bytes follow.
 */
export type ProxyParse =
  | { readonly kind: 'more'; readonly atLeast: number }
  | { readonly kind: 'done'; readonly header: ProxyHeader; readonly length: number }
  | { readonly kind: 'malformed'; readonly reason: string }

const V1_MAX_OCTETS = 107
const V2_HEAD_OCTETS = 16
/**
 * Longest header that is accepted. The standard allows 65,551 octets; real senders use up to 600.
 */
export const PROXY_HEADER_MAX_OCTETS = 4096
const V2_SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a)
const V1_SIGNATURE = Uint8Array.of(0x50, 0x52, 0x4f, 0x58, 0x59, 0x20)
const V1_SHORTEST = 'PROXY UNKNOWN\r\n'.length

const TLV = { alpn: 0x01, authority: 0x02, crc32c: 0x03, uniqueId: 0x05, ssl: 0x20 } as const
const SSL_TLV = { version: 0x21, commonName: 0x22, cipher: 0x23 } as const
const SSL_CLIENT = { tls: 0x01, certificateOnConnection: 0x02, certificateInSession: 0x04 } as const

/**
 * Parses a PROXY header of one of `versions` (haproxy's doc/proxy-protocol.txt). Call it with all
 * bytes so far until the result is not `more`. A header above PROXY_HEADER_MAX_OCTETS is malformed.
 * Never throws.
 */
export function parseProxyHeader(bytes: Uint8Array, versions: readonly (1 | 2)[] = [1, 2]): ProxyParse {
  const first = bytes[0]
  if (first === undefined) return more(Math.min(...versions.map(v => (v === 1 ? V1_SHORTEST : V2_HEAD_OCTETS))))
  if (first === V1_SIGNATURE[0] && versions.includes(1)) return parseV1(bytes)
  if (versions.includes(2)) return parseV2(bytes)
  return malformed('no PROXY header')
}

/** True for bytes that begin with the signature of either version. */
export const beginsWithProxyHeader = (bytes: Uint8Array): boolean =>
  [V1_SIGNATURE, V2_SIGNATURE].some(signature => bytes.length >= signature.length && beginsAlike(bytes, signature))

/** Formats a header of version 1. If the families differ, both ends are written as IPv6. */
export function formatProxyV1(source: Endpoint, destination: Endpoint): string {
  const family = sharedFamily(source, destination)
  const text = ({ ip }: Endpoint): string => (family === 6 && familyOf(ip) === 4 ? `::ffff:${ip}` : ip)
  return `PROXY TCP${family} ${text(source)} ${text(destination)} ${source.port} ${destination.port}\r\n`
}

/**
 * Formats a header of version 2, with its CRC32C. Throws RangeError above PROXY_HEADER_MAX_OCTETS.
 */
export function formatProxyV2(source: Endpoint, destination: Endpoint, fields: ProxyFields = {}): Buffer {
  const family = sharedFamily(source, destination)
  const ports = Buffer.alloc(4)
  ports.writeUInt16BE(source.port, 0)
  ports.writeUInt16BE(destination.port, 2)
  const addresses = [...[source, destination].map(({ ip }) => addressBytes(ip, family)), ports]
  const checksum = tlv(TLV.crc32c, Buffer.alloc(4))
  const header = Buffer.concat([
    v2Head(0x21, family === 4 ? 0x11 : 0x21),
    ...addresses,
    ...formatFields(fields),
    checksum,
  ])
  if (header.length > PROXY_HEADER_MAX_OCTETS) throw new RangeError(`PROXY header of ${header.length} octets`)
  header.writeUInt16BE(header.length - V2_HEAD_OCTETS, 14)
  header.writeUInt32BE(crc32c(header), header.length - 4)
  return header
}

/** Formats a header of version 2 for a connection that the proxy makes for itself. */
export const formatProxyLocal = (): Buffer => v2Head(0x20, 0x00)

function parseV1(bytes: Uint8Array): ProxyParse {
  if (!beginsAlike(bytes, V1_SIGNATURE)) return malformed('no PROXY header')
  const lineFeed = bytes.subarray(0, V1_MAX_OCTETS).indexOf(0x0a)
  if (lineFeed < 0) {
    if (bytes.length >= V1_MAX_OCTETS) return malformed('PROXY line longer than 107 octets')
    return more(Math.max(1, V1_SHORTEST - bytes.length))
  }
  const line = latin1(bytes.subarray(0, lineFeed + 1))
  if (!line.endsWith('\r\n')) return malformed('PROXY line ends without CR')
  const length = line.length
  if (/^PROXY UNKNOWN(?: [^\r\n]*)?\r\n$/.test(line))
    return { kind: 'done', header: { kind: 'unknown', version: 1 }, length }
  const words = /^PROXY TCP([46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n$/.exec(line)
  if (words === null) return malformed('PROXY line malformed')
  const [, family, from = '', to = '', fromPort, toPort] = words
  const source = { ip: v1Address(family, from), port: Number(fromPort) }
  const destination = { ip: v1Address(family, to), port: Number(toPort) }
  if (!isEndpoint(source) || !isEndpoint(destination)) return malformed('PROXY line holds a bad address or port')
  return { kind: 'done', header: { kind: 'proxied', version: 1, source, destination, fields: {} }, length }
}

const v1Address = (family: string | undefined, text: string): IpAddress | undefined =>
  text.includes(':') === (family === '6') ? parseIpAddress(text) : undefined

const isEndpoint = (end: { ip: IpAddress | undefined; port: number }): end is Endpoint =>
  end.ip !== undefined && end.port <= 65_535

function parseV2(bytes: Uint8Array): ProxyParse {
  if (!beginsAlike(bytes, V2_SIGNATURE)) return malformed('no PROXY header')
  if (bytes.length < V2_HEAD_OCTETS) return more(V2_HEAD_OCTETS - bytes.length)
  const [command = 0, family = 0, high = 0, low = 0] = bytes.subarray(12, V2_HEAD_OCTETS)
  const length = V2_HEAD_OCTETS + high * 256 + low
  if (command !== 0x20 && command !== 0x21) return malformed('PROXY header of unknown version or command')
  if (length > PROXY_HEADER_MAX_OCTETS) return malformed(`PROXY header longer than ${PROXY_HEADER_MAX_OCTETS} octets`)
  if (bytes.length < length) return more(length - bytes.length)
  if (command === 0x20) return { kind: 'done', header: { kind: 'local', version: 2 }, length }

  const addressLength = ADDRESS_OCTETS.get(family)
  if (addressLength === undefined) return malformed('PROXY header of unknown address family')
  const body = bytes.subarray(V2_HEAD_OCTETS, length)
  if (body.length < addressLength) return malformed('PROXY header cut short')
  // An unspecified family has no defined layout, so the rest cannot be parsed
  // (doc/proxy-protocol.txt §2.2).
  if (family === 0x00) return { kind: 'done', header: { kind: 'unknown', version: 2 }, length }
  const fields = readFields(bytes.subarray(0, length), V2_HEAD_OCTETS + addressLength)
  if (typeof fields === 'string') return malformed(fields)
  if (addressLength === UNIX_OCTETS) return { kind: 'done', header: { kind: 'unknown', version: 2 }, length }

  const width = (addressLength - 4) / 2
  const source = { ip: readAddress(body.subarray(0, width)), port: uint16(body, 2 * width) }
  const destination = { ip: readAddress(body.subarray(width, 2 * width)), port: uint16(body, 2 * width + 2) }
  return { kind: 'done', header: { kind: 'proxied', version: 2, source, destination, fields }, length }
}

const UNIX_OCTETS = 216
/** Octets of addresses and ports, by family and protocol. Datagrams cannot come on a stream. */
const ADDRESS_OCTETS = new Map([
  [0x00, 0],
  [0x11, 12],
  [0x21, 36],
  [0x31, UNIX_OCTETS],
])

function readFields(header: Uint8Array, from: number): ProxyFields | string {
  const list = readTlvs(header, from)
  if (list === undefined) return 'PROXY fields cut short'
  const crc = list.find(({ type }) => type === TLV.crc32c)
  if (crc !== undefined && !checksumHolds(header, crc)) return 'PROXY checksum wrong'
  const text = (type: number): string | undefined => textOf(list, type)
  const ssl = list.find(({ type }) => type === TLV.ssl)
  const tls = ssl === undefined ? undefined : readTls(ssl.value)
  if (tls === 'malformed') return 'PROXY TLS field malformed'
  return { alpn: text(TLV.alpn), authority: text(TLV.authority), uniqueId: text(TLV.uniqueId), tls }
}

function readTls(value: Uint8Array): ProxyTls | 'malformed' | undefined {
  const list = readTlvs(value, 5)
  const flags = value[0]
  if (list === undefined || flags === undefined) return 'malformed'
  if ((flags & SSL_CLIENT.tls) === 0) return undefined
  const showed = (flags & (SSL_CLIENT.certificateOnConnection | SSL_CLIENT.certificateInSession)) !== 0
  const verified = showed && value.subarray(1, 5).every(byte => byte === 0)
  const text = (type: number): string | undefined => textOf(list, type)
  return {
    verified,
    version: text(SSL_TLV.version),
    cipher: text(SSL_TLV.cipher),
    commonName: text(SSL_TLV.commonName),
  }
}

type Tlv = { readonly type: number; readonly value: Uint8Array; readonly at: number }

function readTlvs(bytes: Uint8Array, from: number): readonly Tlv[] | undefined {
  if (bytes.length < from) return undefined
  const list: Tlv[] = []
  for (let at = from; at < bytes.length; ) {
    // Missing octets of the length count as 0, so a field that is cut there ends behind the bytes.
    const end = at + 3 + uint16(bytes, at + 1)
    if (end > bytes.length) return undefined
    list.push({ type: bytes[at] ?? 0, value: bytes.subarray(at + 3, end), at: at + 3 })
    at = end
  }
  return list
}

/** Checks the CRC32C of the header, with zeros in its own place (doc/proxy-protocol.txt §2.2.3). */
function checksumHolds(header: Uint8Array, { value, at }: Tlv): boolean {
  if (value.length !== 4) return false
  const blank = Uint8Array.from(header)
  blank.fill(0, at, at + 4)
  return crc32c(blank) === uint16(value, 0) * 0x10000 + uint16(value, 2)
}

function formatFields({ alpn, authority, uniqueId, tls }: ProxyFields): Buffer[] {
  const out: Buffer[] = []
  const put = (list: Buffer[], type: number, text: string | undefined): void => {
    if (text !== undefined) list.push(tlv(type, Buffer.from(text)))
  }
  put(out, TLV.alpn, alpn)
  put(out, TLV.authority, authority)
  put(out, TLV.uniqueId, uniqueId)
  if (tls !== undefined) {
    const certificate = SSL_CLIENT.certificateOnConnection | SSL_CLIENT.certificateInSession
    const flags = SSL_CLIENT.tls | (tls.verified ? certificate : 0)
    const inner = [Buffer.of(flags, 0, 0, 0, tls.verified ? 0 : 1)]
    put(inner, SSL_TLV.version, tls.version)
    put(inner, SSL_TLV.commonName, tls.commonName)
    put(inner, SSL_TLV.cipher, tls.cipher)
    out.push(tlv(TLV.ssl, Buffer.concat(inner)))
  }
  return out
}

function tlv(type: number, value: Uint8Array): Buffer {
  const out = Buffer.alloc(3 + value.length)
  out[0] = type
  out.writeUInt16BE(Math.min(value.length, 0xffff), 1)
  out.set(value, 3)
  return out
}

function v2Head(command: number, family: number): Buffer {
  const head = Buffer.alloc(V2_HEAD_OCTETS)
  head.set(V2_SIGNATURE)
  head[12] = command
  head[13] = family
  return head
}

const sharedFamily = (a: Endpoint, b: Endpoint): 4 | 6 => (familyOf(a.ip) === 4 && familyOf(b.ip) === 4 ? 4 : 6)
const more = (atLeast: number): ProxyParse => ({ kind: 'more', atLeast })
const malformed = (reason: string): ProxyParse => ({ kind: 'malformed', reason })
const uint16 = (bytes: Uint8Array, at: number): number => (bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0)
const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
const beginsAlike = (bytes: Uint8Array, signature: Uint8Array): boolean =>
  signature.every((byte, i) => i >= bytes.length || bytes[i] === byte)

/** Text of a field; undefined if the field is missing or not UTF-8, which must not reach a log. */
function textOf(list: readonly Tlv[], type: number): string | undefined {
  const found = list.find(entry => entry.type === type)
  if (found === undefined) return undefined
  const text = Buffer.from(found.value).toString()
  return text.includes('\ufffd') ? undefined : text
}

const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  return value
})

/** CRC-32C (Castagnoli, RFC 3720 appendix B.4), as an unsigned number. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (CRC32C_TABLE[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}
