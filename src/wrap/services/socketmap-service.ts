/** The socketmap service: its maps, and which keys name a client. */
import { LineServer, type LineServerLimits } from '../../process/line-server.ts'
import { type IpAddress, parseIpAddress } from '../../wire/ip-address.ts'
import {
  formatNetstring,
  formatSocketmapAnswer,
  NetstringReader,
  parseSocketmapQuery,
  type SocketmapAnswer,
} from '../../wire/services/socketmap.ts'
import { logAnswer } from '../decision.ts'
import type { QueryListenerOptions } from './query-service.ts'

/**
 * An SMTP session may be silent for an hour. If the service closes sendmail's connection in that
 * time, sendmail replies 4xx to its client.
 */
const IDLE_MS = 2 * 3_600_000
/** Longest query of sendmail in octets. */
const MAX_QUERY = 100_000

/** The maps: the answer for a granted address, and how a key names the client. */
const MAPS: ReadonlyMap<string, { readonly found: string; readonly clientOf: (key: string) => IpAddress | undefined }> =
  new Map([
    ['relay', { found: 'OK', clientOf: parseIpAddress }],
    ['access', { found: 'RELAY', clientOf: connectKey }],
  ])

const EIGHT_GROUPS = /^[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){7}$/i

/**
 * Returns the client of sendmail's key `Connect:`. sendmail looks up the whole address and then
 * prefixes of it. An IPv6 address must show that it is complete, by brackets or by all eight
 * groups. `2001:db8::7` may be a prefix of `2001:db8::7:9`, which sendmail writes in this form with
 * UseCompressedIPv6Addresses.
 */
function connectKey(key: string): IpAddress | undefined {
  const text = /^connect:(.*)$/is.exec(key)?.[1] ?? ''
  const bracketed = /^\[(?:IPv6:)?([^\]]*)\]$/i.exec(text)?.[1]
  if (bracketed !== undefined) return parseIpAddress(bracketed)
  const plain = text.replace(/^IPv6:/i, '')
  return EIGHT_GROUPS.test(plain) || !plain.includes(':') ? parseIpAddress(plain) : undefined
}

/**
 * Makes the socketmap service for Postfix (socketmap_table(5)) and sendmail.
 * - Map `relay`: the key is an address, the answer is `OK` for Postfix's check_client_access.
 *   Postfix looks up only whole addresses in a socketmap.
 * - Map `access`: the key is `Connect:` and an address, the answer is sendmail's `RELAY`. A key
 *   without this tag may be the domain of a sender or a recipient (`bob@[192.0.2.7]`), for which
 *   `RELAY` would open the relay to every client.
 *
 * Names and parts of addresses are not found. `options` is called for each query, because settings
 * may change.
 */
export function socketmapService(options: () => QueryListenerOptions): LineServer<string> {
  const answerTo = async (content: string): Promise<SocketmapAnswer> => {
    const { decide, onDecision, log } = options()
    const query = parseSocketmapQuery(content)
    const map = query === undefined ? undefined : MAPS.get(query.map)
    if (query === undefined || map === undefined)
      return { kind: 'permanent', reason: 'the maps are called relay (Postfix) and access (sendmail)' }
    const ip = map.clientOf(query.key)
    if (ip === undefined) return { kind: 'notfound' }
    const decision = await decide(ip)
    logAnswer(log, decision, { ip, service: 'socketmap' })
    onDecision(ip, decision)
    // Answer "not found" also after an error, because a temporary error would delay all mail while
    // the database is unavailable.
    if (!decision.relay) return { kind: 'notfound' }
    return { kind: 'ok', data: map.found }
  }
  return new LineServer({
    name: 'socketmap',
    order: 'arrival',
    failure: formatNetstring(formatSocketmapAnswer({ kind: 'notfound' })),
    limits: (): LineServerLimits => ({ ...options().limits, idleMs: IDLE_MS }),
    log: () => options().log,
    newService: () => {
      const reader = new NetstringReader(MAX_QUERY)
      return {
        cut: chunk => reader.push(chunk),
        answer: async content => formatNetstring(formatSocketmapAnswer(await answerTo(content))),
      }
    },
  })
}
