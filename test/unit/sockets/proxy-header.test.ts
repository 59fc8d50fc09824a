import { writeSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { receive } from '../../../src/libc/sockets.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'
import { type ReadHeader, readProxyHeaderAndRest, readProxyHeaderExactly } from '../../../src/sockets/proxy-header.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { formatProxyLocal, formatProxyV1, formatProxyV2 } from '../../../src/wire/preamble.ts'
import { ip } from '../../harness/addresses.ts'

const undo: (() => void)[] = []
afterEach(() => {
  for (const one of undo.splice(0)) one()
})

/** A client's end and a reader at the other end. `unread`: octets that the reader has left. */
type Peer = {
  send(octets: Uint8Array): void
  end(): void
  read(limitMs?: number): Promise<ReadHeader>
  unread(): string
}

/** A connection of this process, in which the octets behind the header are a part of the answer. */
function watched(): Peer {
  const stream = new PassThrough()
  const connection = new StreamConnection(stream, stream)
  let rest = ''
  return {
    send: octets => stream.write(octets),
    end: () => stream.end(),
    read: async limitMs => {
      const read = await readProxyHeaderAndRest(connection, limitMs)
      if (!('reason' in read)) rest = read.rest.toString()
      return read
    },
    unread: () => rest,
  }
}

/** A socket that another process will get. */
function unwatched(): Peer {
  const [near, far] = OwnedDescriptor.pair()
  for (const each of [near, far]) undo.push(() => each.isOwned && each.close())
  return {
    send: octets => void writeSync(near.descriptor, octets),
    end: () => near.close(),
    read: limitMs => readProxyHeaderExactly(far.descriptor, limitMs),
    unread: () => receive(far.descriptor, 100)?.toString() ?? '',
  }
}

const [source, destination] = [
  { ip: ip('192.0.2.7'), port: 4000 },
  { ip: ip('192.0.2.1'), port: 110 },
]
const HEADERS: readonly (readonly [string, Buffer, object])[] = [
  ['version 1', Buffer.from(formatProxyV1(source, destination)), { kind: 'proxied', version: 1, source, destination }],
  ['version 2', formatProxyV2(source, destination), { kind: 'proxied', version: 2, source, destination }],
  ['UNKNOWN', Buffer.from('PROXY UNKNOWN\r\n'), { kind: 'unknown', version: 1 }],
  ['LOCAL', formatProxyLocal(), { kind: 'local', version: 2 }],
]

describe.each([
  ['a connection of this process', watched],
  ['a socket for another process', unwatched],
] as const)('the header of %s', (_, make) => {
  test.each(HEADERS)('of %s is read, and the octets behind it are kept', async (_kind, octets, header) => {
    const peer = make()
    peer.send(Buffer.concat([octets, Buffer.from('USER ann\r\n')]))
    expect(await peer.read()).toMatchObject({ header })
    expect(peer.unread()).toBe('USER ann\r\n')
  })

  test.each(HEADERS)('of %s is read in single octets', async (_kind, octets, header) => {
    const peer = make()
    const reading = peer.read()
    for (const octet of octets) {
      peer.send(Uint8Array.of(octet))
      await new Promise(setImmediate)
    }
    peer.send(Buffer.from('x'))
    expect(await reading).toMatchObject({ header })
  })

  test('is refused for a reason, with the number of octets', async () => {
    const malformed = make()
    malformed.send(Buffer.from('USER ann\r\nUSER bob\r\n'))
    expect(await malformed.read()).toMatchObject({ reason: 'no PROXY header', isLate: false })
    const ended = make()
    ended.send(Buffer.from('PROXY TCP4 '))
    ended.end()
    expect(await ended.read()).toEqual({ reason: 'the connection ended within the header', octets: 11, isLate: false })
    const empty = make()
    empty.end()
    expect(await empty.read()).toEqual({ reason: 'the connection ended within the header', octets: 0, isLate: false })
  })

  test('is refused after the time limit', async () => {
    const silent = make()
    silent.send(Buffer.from('PROXY '))
    expect(await silent.read(20)).toEqual({ reason: 'no PROXY header within 20 ms', octets: 6, isLate: true })
  })
})
