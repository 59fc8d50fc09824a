import { parseClientHello } from '../../../src/wire/client-hello.ts'
import { familyOf, type IpAddress, parseIpAddress, readAddress } from '../../../src/wire/ip-address.ts'
import {
  formatProxyLocal,
  formatProxyV1,
  formatProxyV2,
  formatSslPreamble,
  PROXY_HEADER_MAX_OCTETS,
  type ProxyParse,
  parseProxyHeader,
  parseSslPreamble,
} from '../../../src/wire/preamble.ts'
import { CLIENT_HELLO } from './client-hello.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'
import type { Random } from './random.ts'

const ipOf = (...octets: readonly number[]): IpAddress => readAddress(Uint8Array.from(octets))
const V4 = ipOf(192, 0, 2, 7)
const V6 = ipOf(0x20, 1, 0xd, 0xb8, ...Array.from({ length: 11 }, () => 0), 7)

const SSL_LINES = [V4, V6].map(host => formatSslPreamble({ host, pass: 'a secret: of two' }).slice(0, -2))

/** The SSL command: an address and a password exactly as in the line, or nothing. */
export const sslPreamble: FuzzTarget = {
  name: 'ssl-preamble',
  attempt(random) {
    const line = mutated(random, random.pick(SSL_LINES), [...SSL_LINES, ']:', '[::1]', 'ssl '])
    const parsed = parseSslPreamble(line)
    if (parsed === undefined || parsed === 'malformed') return
    const [, bracketed, plain, pass] = /^[sS][sS][lL] (?:\[([^\]]*)\]|([^:]*)):(.*)$/s.exec(line) ?? []
    promise(pass === parsed.pass && parseIpAddress(bracketed ?? plain ?? '') === parsed.host, 'read otherwise', line)
    promise(/^[\x20-\x7e]{1,200}$/.test(parsed.pass), 'a password with control characters', line)
    promise((bracketed !== undefined) === /:/.test(bracketed ?? plain ?? ''), 'brackets are for IPv6', line)
  },
}

const ends = [V4, V6].map(ip => ({ source: { ip, port: 40_000 }, destination: { ip, port: 995 } }))
const PROXY_HEADERS = [
  ...ends.map(({ source, destination }) => formatProxyV1(source, destination)),
  'PROXY UNKNOWN\r\n',
  'PROXY UNKNOWN 192.0.2.7 192.0.2.1 1 2\r\n',
  ...ends.flatMap(({ source, destination }) =>
    [
      {},
      { alpn: 'pop3', authority: 'mx.example.org', uniqueId: '7f3a.12', tls: { version: 'TLSv1.3', verified: true } },
    ].map(fields => formatProxyV2(source, destination, fields).toString('latin1')),
  ),
  formatProxyLocal().toString('latin1'),
]

const same = (a: ProxyParse, b: ProxyParse): boolean => JSON.stringify(a) === JSON.stringify(b)

/**
 * PROXY headers: a verdict on a beginning is never changed, and reading the requested number of
 * octets never reads too far.
 */
export const proxyHeader: FuzzTarget = {
  name: 'proxy-header',
  attempt(random) {
    const header = random.pick(PROXY_HEADERS)
    const text = `${random.oneIn(8) ? header : mutated(random, header, PROXY_HEADERS)}CAPA\r\n`
    const bytes = Buffer.from(text, 'latin1')
    const versions = random.pick<readonly (1 | 2)[]>([[1], [2], [1, 2]])
    const whole = parseProxyHeader(bytes, versions)
    for (let at = 0, asked = 0; asked < 5000; asked++) {
      const part = parseProxyHeader(bytes.subarray(0, at), versions)
      if (part.kind !== 'more') {
        promise(same(part, whole) || part.kind === 'malformed', 'a verdict changed', text)
        if (part.kind === 'done') promise(part.length === at, 'was read too far', text)
        break
      }
      promise(part.atLeast >= 1, 'asks for nothing', text)
      at += part.atLeast
      if (at > bytes.length) break
    }
    if (whole.kind !== 'done') return
    promise(whole.length <= Math.min(bytes.length, PROXY_HEADER_MAX_OCTETS), 'longer than it is', text)
    if (whole.header.kind !== 'proxied') return
    for (const { ip, port } of [whole.header.source, whole.header.destination])
      promise(parseIpAddress(ip) === ip && port >= 0 && port <= 65_535 && familyOf(ip) >= 4, 'a bad end', text)
  },
}

/** The beginning of a TLS handshake. */
export const clientHello: FuzzTarget = {
  name: 'client-hello',
  attempt(random) {
    const bytes = Buffer.from(mutatedOrWhole(random), 'latin1')
    const parsed = parseClientHello(bytes)
    if (parsed.kind !== 'hello' || parsed.hello.servername === undefined) return
    promise(
      /^[a-z0-9_.-]{0,254}$/.test(parsed.hello.servername),
      'a server name that is none',
      bytes.toString('latin1'),
    )
  },
}

const mutatedOrWhole = (random: Random): string => mutated(random, CLIENT_HELLO, [CLIENT_HELLO.slice(0, 9)])
