import { Socket } from 'node:net'

/**
 * One buffer into which every client's commands are read, in turn. Without it the runtime takes 64 KB of fresh memory for
 * each command of six octets. Nobody sees it but the callback below, which copies what was read and no more.
 */
const SHARED = Buffer.allocUnsafeSlow(16_384)

/** Makes a socket of a client's descriptor, paused: what the client sends waits in the kernel until `resume`. */
export function adoptSocket(fd: number): Socket {
  const socket: Socket = new Socket({
    fd,
    allowHalfOpen: true,
    onread: {
      buffer: SHARED,
      callback: octets => {
        socket.emit('data', Buffer.from(SHARED.subarray(0, octets)))
        return !socket.isPaused()
      },
    },
  })
  socket.pause()
  return socket
}
