import { createServer, type Server } from 'node:net'
import { parseIpAddress } from '../wire/ip-address.ts'
import { formatNetstring, NetstringReader } from '../wire/netstring.ts'
import { formatSocketmapAnswer, parseSocketmapQuestion, type SocketmapAnswer } from '../wire/socketmap.ts'
import { logAnswer } from './decision.ts'
import type { DoorOptions } from './door-options.ts'

/** The longest question that sendmail sends. */
const MAX_QUESTION = 100_000

/** What a map says of a granted address. */
const FOUND: ReadonlyMap<string, string> = new Map([
  ['relay', 'OK'],
  ['access', 'RELAY'],
])

/**
 * socketmap tables of Postfix (socketmap_table(5)) and sendmail. Map `relay`: the key is an address, the answer `OK`, as Postfix's
 * check_client_access wants it. Map `access`: the key may begin with `Connect:`, the answer is sendmail's `RELAY`. Postfix also asks for host names and
 * parts of addresses: those are not found. `options` is asked for each question: settings may change.
 */
export function socketmapDoor(options: () => DoorOptions): Server {
  const answerTo = async (content: string): Promise<SocketmapAnswer> => {
    const { decide, onRelay, log } = options()
    const question = parseSocketmapQuestion(content)
    const data = question === undefined ? undefined : FOUND.get(question.map)
    if (question === undefined || data === undefined)
      return { type: 'permanent', reason: 'the maps are called relay (Postfix) and access (sendmail)' }
    const key = question.key.replace(/^Connect:/i, '').replace(/^\[(.*)\]$|^IPv6:/i, '$1')
    const ip = parseIpAddress(key)
    if (ip === undefined) return { type: 'notfound' }
    const decision = await decide(ip)
    logAnswer(log, decision, { ip, door: 'socketmap' })
    // "Not found" for an error too: a temporary answer would hold up everybody's mail because of the database.
    if (!decision.relay) return { type: 'notfound' }
    onRelay(ip)
    return { type: 'ok', data }
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
