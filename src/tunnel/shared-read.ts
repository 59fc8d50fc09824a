import type { OnReadOpts, Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/**
 * One buffer into which every socket of this process that asks for it reads, in turn. Without it
 * the runtime takes 64 KB of fresh memory
 * for each read, which is half the cost of a download. The size is what a slow reader may keep of us in encrypted form.
 */
const SHARED = Buffer.allocUnsafeSlow(131_072)

/** Takes a chunk that is good only until it returns; false to be given no more until the socket is resumed. */
type Sink = (chunk: Buffer) => boolean

const sinks = new WeakMap<Duplex, { sink: Sink }>()

/**
 * Connects by `connect`, whose options get our `onread`. Until a sink is set (`setSink`) the socket
 * gives out copies as ordinary `data`
 * events: add a listener before the first byte can come, or pause it.
 */
export function connectSharingReads(connect: (onread: OnReadOpts) => Socket): Socket {
  const holder: { sink: Sink } = { sink: () => false }
  const socket = connect({
    buffer: SHARED,
    callback: (octets, buffer) => holder.sink(Buffer.from(buffer.buffer, buffer.byteOffset, octets)),
  })
  holder.sink = chunk => {
    socket.emit('data', Buffer.from(chunk))
    return !socket.isPaused()
  }
  sinks.set(socket, holder)
  return socket
}

/** Gives the socket's chunks to a sink instead of `data` listeners. False if it is no socket of connectSharingReads. */
export function setSink(stream: Duplex, sink: Sink): boolean {
  const holder = sinks.get(stream)
  if (holder !== undefined) holder.sink = sink
  return holder !== undefined
}
