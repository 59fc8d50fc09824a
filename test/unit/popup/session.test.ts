import { type Duplex, duplexPair } from 'node:stream'
import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { type Authenticator, failed } from '../../../src/popup/login/authenticator.ts'
import type { Client } from '../../../src/popup/login/client.ts'
import { authorizationOptions } from '../../../src/popup/login/client.ts'
import { LoginSession, type LoginSessionHost } from '../../../src/popup/login/session.ts'
import { Secret } from '../../../src/settings/secret.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { NetworkSet, parseIpAddress, parseNetwork } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'

const ip = parseIpAddress('192.0.2.7')
if (ip === undefined) throw new TypeError('an address')
const trusted = ['192.0.2.7'].flatMap(text => parseNetwork(text) ?? [])

const CLIENT: Client = {
  id: sessionId(1, 1),
  ip,
  port: 40_000,
  localIp: undefined,
  localPort: undefined,
  tls: false,
  proxyIp: undefined,
}

/**
 * The server behind the login process in these tests: greets with +OK and returns every line that
 * it receives, until QUIT.
 */
function echo(): { stream: Duplex; received: () => string } {
  let received = ''
  const [stream, peer] = duplexPair()
  peer.write('+OK \r\n')
  peer.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
    if (peer.writableEnded) return
    peer.write(chunk)
    if (received.includes('QUIT\r\n')) peer.end()
  })
  peer.on('end', () => peer.end())
  return { stream, received: () => received }
}

/**
 * Runs one session over the pieces of its input; returns the text that the client and the server
 * behind have read.
 */
async function converse(pieces: readonly Buffer[]): Promise<{ output: string; behind: string; clients: string[] }> {
  let output = ''
  let behind = ''
  const clients: string[] = []
  const over = Promise.withResolvers<void>()
  const authenticate: Authenticator = async ({ login, secret, client }) => {
    clients.push(`${client.ip} tls=${client.tls}`)
    await new Promise(setImmediate)
    if (secret !== 'secret') return failed(login === 'later' ? 'temporary' : 'credentials')
    const { stream, received } = echo()
    stream.on('close', () => {
      behind = received()
    })
    return { kind: 'open', stream, reply: [] }
  }
  const host: LoginSessionHost = {
    log: createLog('popup', { write: () => {} }),
    authenticate,
    loginTime: 60_000,
    idleLimit: 60_000,
    preamble: { password: new Secret('p:w'), reply: 'ok' },
    stls: undefined,
    apop: true,
    timestampFor: () => '<1.1.1@mx>',
    optionsFor: client =>
      authorizationOptions(
        {
          compat: 'none',
          requireTls: false,
          cleartextNets: new NetworkSet([]),
          cleartextLogins: [],
          loginDelay: 0,
          tries: 3,
          preambleTrust: new NetworkSet(trusted),
          stls: false,
        },
        client,
      ),
    preambleRefused: () => {},
    anotherProtocol: () => {},
    oldTlsRemedy: () => undefined,
    moveTo: () => true,
    admit: () => true,
    loggedIn: () => {},
    left: () => over.resolve(),
    disconnected: () => {},
  }
  const [stream, client] = duplexPair()
  client.on('data', (chunk: Buffer) => {
    output += chunk.toString('latin1')
  })
  // A real client closes when the server does.
  client.on('end', () => client.end())
  new LoginSession(host, new StreamConnection(stream, stream), CLIENT).start()
  for (const piece of pieces) {
    if (client.writableEnded) break
    client.write(piece)
    await new Promise(setImmediate)
  }
  client.end()
  await over.promise
  await new Promise(setImmediate)
  return { output, behind, clients }
}

const CASES: readonly { name: string; input: string; output: string; behind: string; clients: readonly string[] }[] = [
  {
    name: 'everything at once',
    input: 'USER ann\r\nPASS secret\r\nSTAT\r\nQUIT\r\n',
    output: '+OK <1.1.1@mx>\r\n+OK \r\n+OK \r\nSTAT\r\nQUIT\r\n',
    behind: 'STAT\r\nQUIT\r\n',
    clients: ['192.0.2.7 tls=false'],
  },
  {
    name: 'failures before a login',
    input: 'USER ann\r\nPASS x\r\nPASS secret\r\nUSER later\r\nPASS x\r\nUSER ann\r\nPASS secret\r\nQUIT\r\n',
    output:
      '+OK <1.1.1@mx>\r\n+OK \r\n-ERR [AUTH] authorization failed\r\n-ERR USER first\r\n+OK \r\n' +
      '-ERR [SYS/TEMP] temporary authentication failure\r\n+OK \r\n+OK \r\nQUIT\r\n',
    behind: 'QUIT\r\n',
    clients: Array(3).fill('192.0.2.7 tls=false'),
  },
  {
    name: 'the preamble',
    input: 'SSL [2001:db8::1]:p:w\r\nSSL 192.0.2.9:p:w\r\nUSER ann\r\nPASS secret\r\nQUIT\r\n',
    output: '+OK <1.1.1@mx>\r\n+OK \r\n-ERR authorization first\r\n+OK \r\n+OK \r\nQUIT\r\n',
    behind: 'QUIT\r\n',
    clients: ['2001:db8::1 tls=true'],
  },
  {
    name: 'QUIT before login',
    input: 'CAPA\r\nQUIT\r\nUSER ann\r\n',
    output:
      '+OK <1.1.1@mx>\r\n+OK \r\nTOP\r\nUIDL\r\nUSER\r\nSASL PLAIN LOGIN\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n' +
      'EXPIRE NEVER\r\nIMPLEMENTATION auth-relay\r\n.\r\n+OK \r\n',
    behind: '',
    clients: [],
  },
]

describe.each(CASES)('a session: $name', ({ input, output, behind, clients }) => {
  const octets = Buffer.from(input, 'latin1')

  test('in one piece', async () => {
    expect(await converse([octets])).toEqual({ output, behind, clients })
  })

  test('cut at every octet', async () => {
    for (let cut = 1; cut < octets.length; cut++) {
      expect(await converse([octets.subarray(0, cut), octets.subarray(cut)])).toEqual({ output, behind, clients })
    }
  })

  property.prop([fc.array(fc.nat(octets.length - 1), { maxLength: 8 })], { numRuns: 20 })(
    'in any pieces',
    async cuts => {
      const marks = [0, ...new Set(cuts), octets.length].sort((a, b) => a - b)
      const pieces = marks.slice(1).map((end, i) => octets.subarray(marks[i] ?? 0, end))
      expect(await converse(pieces)).toEqual({ output, behind, clients })
    },
  )
})
