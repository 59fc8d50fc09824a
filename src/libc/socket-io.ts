import { constants } from 'node:os'
import { lastErrno, nativeFunction } from './native-function.ts'

const recv = nativeFunction('long recv(int fd, void *buffer, size_t size, int flags)')
const sendCall = nativeFunction('long send(int fd, const void *octets, size_t size, int flags)')

const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_MORE = 0x8000

/** Reads what has arrived into `buffer`: the number of octets, 0 at the end of the stream, or a negative errno. Never waits. */
export function receiveInto(fd: number, buffer: Uint8Array): number {
  const count = recv(fd, buffer, buffer.length, MSG_DONTWAIT)
  return count < 0 ? -lastErrno() : count
}

const sender =
  (flags: number) =>
  (fd: number, buffer: Uint8Array, octets: number): number => {
    const count = sendCall(fd, buffer, octets, MSG_DONTWAIT | MSG_NOSIGNAL | flags)
    return count < 0 ? -lastErrno() : count
  }

/** Sends the first octets of `buffer`: how many the kernel took, or a negative errno. Never waits, and raises no signal. */
export const sendFrom = sender(0)

/** The same, for octets behind which more follows at once, or the end of the connection: the kernel holds them for it (MSG_MORE, send(2)). */
export const sendMoreFrom = sender(MSG_MORE)

const { EAGAIN, EINTR } = constants.errno

/** The negative errno means that it can be done later. */
export const isLater = (result: number): boolean => result === -EAGAIN || result === -EINTR
