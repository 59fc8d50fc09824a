import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import { receiveInto, sendFrom } from '../../../src/libc/sockets.ts'
import type { Engine } from '../../../src/sockets/engine.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'
import type { TwoWaySocket } from '../../../src/sockets/two-way-socket.ts'
import { eventually } from '../../harness/eventually.ts'
import { acceptedSocket } from '../../harness/processes/accepted-socket.ts'
import { BOTH_ENGINES } from '../../harness/processes/engines.ts'

const cleanup: (() => void)[] = []
afterEach(() => {
  for (const undo of cleanup.splice(0)) undo()
})

/** More than the kernel keeps for a peer that does not read. */
const MUCH = 4 * 1024 * 1024

/** A socket of the engine, the events of its listener, and the descriptor of the peer. */
function pair(engine: Engine) {
  const [near, far] = OwnedDescriptor.pair()
  const seen = { octets: '', ended: 0, room: 0 }
  const socket: TwoWaySocket = engine.twoWay(near, {
    data: octets => {
      seen.octets += Buffer.from(octets).toString('latin1')
    },
    ended: () => {
      seen.ended += 1
    },
    room: () => {
      seen.room += 1
    },
  })
  cleanup.push(() => {
    socket.destroy()
    if (far.isOwned) far.close()
  })
  const say = (text: string): void => {
    expect(sendFrom(far.descriptor, Buffer.from(text, 'latin1'), text.length)).toBe(text.length)
  }
  const buffer = Buffer.alloc(65_536)
  /** The octets that have arrived at the peer; undefined at the end. */
  const hear = (): string | undefined => {
    let text = ''
    for (;;) {
      const count = receiveInto(far.descriptor, buffer)
      if (count > 0) text += buffer.toString('latin1', 0, count)
      else return count === 0 && text === '' ? undefined : text
    }
  }
  return { socket, seen, far, say, hear }
}

/** Time for the event loop to report what has happened. */
async function someTurns(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await new Promise(resolve => setImmediate(resolve))
}

describe.each(BOTH_ENGINES)('a two-way socket of the engine $name', ({ engine }) => {
  test('reports octets and the end, but not while it is paused', async () => {
    const { socket, seen, far, say } = pair(engine)
    say('one')
    await someTurns()
    expect(seen.octets).toBe('')
    socket.resume()
    await eventually('octets arrive', () => seen.octets === 'one')
    socket.pause()
    say('two')
    far.close()
    await someTurns()
    expect(seen.ended).toBe(0)
    socket.resume()
    await eventually('the end', () => seen.ended === 1)
    expect(seen.octets).toBe('onetwo')
    await someTurns()
    expect(seen.ended).toBe(1)
  })

  test('continues to read after the end of its output, and to write after the end of its input', async () => {
    const one = pair(engine)
    one.socket.resume()
    one.socket.write(Buffer.from('last'))
    one.socket.endOutput()
    one.socket.write(Buffer.from('dropped'))
    let heard = ''
    await eventually('the end of the output', () => {
      const text = one.hear()
      heard += text ?? ''
      return text === undefined
    })
    expect(heard).toBe('last')
    one.say('answer')
    await eventually('the answer', () => one.seen.octets === 'answer')

    const { client, socket: accepted, close } = await acceptedSocket(engine)
    cleanup.push(close)
    let ended = false
    const two = engine.twoWay(accepted.detach(), {
      data: () => {},
      ended: () => {
        ended = true
      },
      room: () => {},
    })
    cleanup.push(() => two.destroy())
    two.noDelay()
    two.resume()
    client.end('bye')
    await eventually('the end of the input', () => ended)
    two.write(Buffer.from('reply'))
    const [reply] = await once(client, 'data')
    expect(String(reply)).toBe('reply')
  })

  test('octets of a peer that has disconnected are still read after a failed write', async () => {
    const { socket, seen, far, say } = pair(engine)
    say('last words')
    far.close()
    // The end of the peer is reported while reading is paused.
    await someTurns()
    socket.write(Buffer.from('the peer does not read this'))
    await someTurns()
    expect(seen.octets).toBe('')
    socket.resume()
    await eventually('the end', () => seen.ended === 1)
    expect(seen.octets).toBe('last words')
    expect(socket.unsent).toBe(0)
  })

  test('keeps the octets that the kernel does not accept, and reports room', async () => {
    const { socket, seen, hear } = pair(engine)
    const octets = Buffer.alloc(MUCH, 'x')
    socket.write(octets)
    socket.write(Buffer.from('end'))
    octets.fill('y')
    expect(socket.unsent).toBeGreaterThan(0)
    socket.endOutput()
    let heard = ''
    await eventually('all octets', () => {
      const text = hear()
      heard += text ?? ''
      return text === undefined
    })
    expect(heard.length).toBe(MUCH + 3)
    expect(heard.includes('y')).toBe(false)
    expect(socket.unsent).toBe(0)
    expect(seen.room).toBeGreaterThan(0)
  })

  test('reports room if the peer closes before it has read all octets', async () => {
    const { socket, seen, far } = pair(engine)
    socket.write(Buffer.alloc(MUCH))
    expect(socket.unsent).toBeGreaterThan(0)
    far.close()
    await eventually('room', () => seen.room > 0)
    expect(socket.unsent).toBe(0)
  })

  test('calls no listener after it was destroyed, and has then closed its descriptors', async () => {
    const { socket, seen, say, hear } = pair(engine)
    socket.resume()
    socket.write(Buffer.alloc(MUCH))
    say('late')
    socket.destroy()
    socket.destroy()
    socket.write(Buffer.from('later'))
    socket.endOutput()
    await eventually('the end', () => hear() === undefined)
    expect(seen).toEqual({ octets: '', ended: 0, room: 0 })
  })
})
