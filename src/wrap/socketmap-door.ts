import { createServer, type Server } from 'node:net'
import { type IpAddress, parseIpAddress } from '../wire/ip-address.ts'
import { formatNetstring, NetstringReader } from '../wire/netstring.ts'
import { formatSocketmapAnswer, parseSocketmapQuestion, type SocketmapAnswer } from '../wire/socketmap.ts'
import { logAnswer } from './decision.ts'
import type { DoorOptions } from './door-options.ts'

/** The longest question that sendmail sends. */
const MAX_QUESTION = 100_000

/** Each map: what it says of a granted address, and how its keys name a client. */
const MAPS: ReadonlyMap<string, { readonly found: string; readonly clientOf: (key: string) => IpAddress | undefined }> =
  new Map([
    ['relay', { found: 'OK', clientOf: parseIpAddress }],
    ['access', { found: 'RELAY', clientOf: connectKey }],
  ])

const EIGHT_GROUPS = /^[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){7}$/i

/**
 * The client that sendmail's `Connect:` key names. sendmail asks for the whole address and then for
 * what is left of it when parts are cut off at the right, so an IPv6 address must show that nothing
 * was cut off: by brackets or by all of its eight groups. `2001:db8::7` may be a part of
 * `2001:db8::7:9`, which sendmail writes so with UseCompressedIPv6Addresses.
 */
function connectKey(key: string): IpAddress | undefined {
  const text = /^connect:(.*)$/is.exec(key)?.[1] ?? ''
  const bracketed = /^\[(?:IPv6:)?([^\]]*)\]$/i.exec(text)?.[1]
  if (bracketed !== undefined) return parseIpAddress(bracketed)
  const plain = text.replace(/^IPv6:/i, '')
  return EIGHT_GROUPS.test(plain) || !plain.includes(':') ? parseIpAddress(plain) : undefined
}

/**
 * socketmap tables of Postfix (socketmap_table(5)) and sendmail. Map `relay`: the key is an address, the answer `OK`, as Postfix's
 * check_client_access wants it; Postfix asks a socketmap for whole addresses only. Map `access`: the key is `Connect:` and an address, the answer is sendmail's `RELAY`. What has no such tag may be the domain of a sender
 * or a recipient (`bob@[192.0.2.7]`), to which `RELAY` would let everybody send. Names and parts of addresses are not found. `options` is asked for each question:
 * settings may change.
 */
export function socketmapDoor(options: () => DoorOptions): Server {
  const answerTo = async (content: string): Promise<SocketmapAnswer> => {
    const { decide, onDecision, log } = options()
    const question = parseSocketmapQuestion(content)
    const map = question === undefined ? undefined : MAPS.get(question.map)
    if (question === undefined || map === undefined)
      return { type: 'permanent', reason: 'the maps are called relay (Postfix) and access (sendmail)' }
    const ip = map.clientOf(question.key)
    if (ip === undefined) return { type: 'notfound' }
    const decision = await decide(ip)
    logAnswer(log, decision, { ip, door: 'socketmap' })
    onDecision(ip, decision)
    // "Not found" for an error too: a temporary answer would hold up everybody's mail because of the database.
    if (!decision.relay) return { type: 'notfound' }
    return { type: 'ok', data: map.found }
  }
  return createServer(socket => {
    const reader = new NetstringReader(MAX_QUESTION)
    let last: Promise<void> = Promise.resolve()
    socket.on('error', () => socket.destroy()) // the mail system asks again on a new connection
    socket.on('data', chunk => {
      try {
        for (const content of reader.push(chunk)) {
          const answer = answerTo(content)
          last = last.then(async () => {
            socket.write(formatNetstring(formatSocketmapAnswer(await answer)))
          })
        }
      } catch (error) {
        options().log.warn('socketmap_fault', { error: error instanceof Error ? error : String(error) })
        socket.destroy()
      }
    })
  })
}
