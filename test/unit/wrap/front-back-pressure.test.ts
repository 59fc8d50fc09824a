import { afterEach, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'
import type { TwoWayListener, TwoWaySocket } from '../../../src/sockets/two-way-socket.ts'
import { SmtpFront } from '../../../src/wrap/front/smtp-front.ts'
import { ip } from '../../harness/addresses.ts'
import { eventually } from '../../harness/eventually.ts'

/** Octets that the front and the kernel hold of one peer while the other one reads nothing. */
const MIB = 1_048_576
const LINE = 'RCPT TO:<u@example.org>\r\n'
const COUNT = 60_000

const opened: { destroy(): void }[] = []
afterEach(() => {
  for (const socket of opened.splice(0)) socket.destroy()
})

/** A peer of the front on a Unix socket, whose buffers have a fixed size. */
class Peer {
  received = ''
  lines = 0
  #written = 0
  readonly socket: TwoWaySocket

  constructor(end: OwnedDescriptor, onText: (text: string) => void = () => {}) {
    this.socket = epollEngine.twoWay(end, {
      data: octets => {
        const text = Buffer.from(octets).toString('latin1')
        this.received += text
        this.lines += text.split('\n').length - 1
        onText(text)
      },
      ended: () => {},
      room: () => {},
    })
    opened.push(this.socket)
  }

  write(text: string): void {
    this.#written += text.length
    this.socket.write(Buffer.from(text, 'latin1'))
  }

  /** Octets that have left this process's end: the front or the kernel has them. */
  get accepted(): number {
    return this.#written - this.socket.unsent
  }
}

/** A front between a client that reads nothing and a server that numbers its replies. */
function start() {
  const [clientEnd, frontToClient] = OwnedDescriptor.pair()
  const [serverEnd, frontToServer] = OwnedDescriptor.pair()
  const permit = { giveBack: () => {} }
  const [toClient, toServer] = [frontToClient, frontToServer].map(
    end => (listener: TwoWayListener) => epollEngine.twoWay(end, listener),
  )
  if (toClient === undefined || toServer === undefined) throw new Error('no pair')
  const front = new SmtpFront(toClient, toServer, {
    ip: ip('192.0.2.7'),
    rules: { sender: () => undefined, message: () => permit, recipient: () => permit },
    renewRules: async () => {},
    lineEndings: () => 'strict',
    auth: 'pass',
    lineEndingAdvice: () => '',
    onFault: () => {},
    onRefusal: () => {},
    log: createLog('wrap', { write: () => {} }),
    fields: () => ({ ip: ip('192.0.2.7') }),
  })
  let [lines, pending] = [0, '']
  const server = new Peer(serverEnd, text => {
    pending += text
    const whole = pending.split('\r\n')
    pending = whole.pop() ?? ''
    for (const _line of whole) {
      lines += 1
      server.write(`250 ${lines} ${'x'.repeat(100)}\r\n`)
    }
  })
  server.socket.resume()
  server.write('220 mx\r\n')
  return { front, client: new Peer(clientEnd), server, answered: () => lines }
}

/** The numbers of the replies that a client has received. */
const numbers = ({ received }: Peer): readonly number[] =>
  [...received.matchAll(/^250 (\d+) /gm)].map(([, number]) => Number(number))

/** A session with as many commands as the front passes at once, from another client. */
async function serveAnother(): Promise<void> {
  const { client } = start()
  client.socket.resume()
  client.write(`MAIL FROM:<scan@example.org>\r\n${LINE.repeat(99)}`)
  await eventually('the other client is served', () => client.lines === 101)
}

test('a client that reads no replies stops only itself, its server and its memory below 1 MiB', async () => {
  const { front, client, server, answered } = start()
  client.write(`MAIL FROM:<scan@example.org>\r\n${LINE.repeat(COUNT)}`)
  let before = -1
  // Another session is the clock: the stopped one does not move during it.
  await eventually('nothing moves', async () => {
    const now = answered() + client.accepted + server.accepted
    const isStill = now === before
    before = now
    await serveAnother()
    return isStill
  })
  expect(answered()).toBeGreaterThan(100)
  expect(server.accepted).toBeLessThan(MIB)
  expect(client.socket.unsent).toBeGreaterThan(0)
  // Everything that the client has sent and the server has not read.
  expect(client.accepted - server.received.length).toBeLessThan(MIB)

  // The server writes without end, and the front reads no more of it.
  server.write('250 flood\r\n'.repeat(500_000))
  await serveAnother()
  await serveAnother()
  expect(server.accepted).toBeLessThan(MIB)
  front.endSession('stopped', '421 4.3.2 stopped')
  await front.closed
})

test('a client that reads its replies late gets all of them in order', async () => {
  const { client } = start()
  client.write(`MAIL FROM:<scan@example.org>\r\n${LINE.repeat(2_999)}`)
  await serveAnother()
  client.socket.resume()
  await eventually('all are answered', () => client.lines === 3_001)
  expect(numbers(client)).toEqual(Array.from({ length: 3_000 }, (_, index) => index + 1))
})
