import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { checked, lastErrno, nativeFunction, SystemCallError } from './native-function.ts'
import { connectUnix, unixSocket } from './unix-socket.ts'

const setsockopt = nativeFunction('int setsockopt(int fd, int level, int option, const void *value, int size)')
const send = nativeFunction('long send(int fd, const void *octets, size_t size, int flags)')
const recv = nativeFunction('long recv(int fd, void *octets, size_t size, int flags)')

const SOL_SOCKET = 1
const [SO_RCVTIMEO, SO_SNDTIMEO] = [20, 21]
const MSG_NOSIGNAL = 0x4000

/**
 * Connects to a Unix socket, sends a text and answers what comes back up to the first LF or the end, at most `limit` octets. Blocks the whole process, at most twice
 * the time given: for a program that does nothing else, and must not pay for loading an event-driven network. Throws SystemCallError (EAGAIN: too late).
 */
export function unixExchange(path: string, text: string, limit: number, timeoutMs: number): string {
  const until = performance.now() + timeoutMs
  const fd = unixSocket({ blocking: true })
  try {
    limitTime(fd, timeoutMs)
    connectUnix(fd, path)
    const question = Buffer.from(text)
    uninterrupted('send', () => send(fd, question, question.length, MSG_NOSIGNAL))
    let heard = ''
    const piece = Buffer.alloc(limit)
    while (heard.length < limit && !heard.includes('\n')) {
      const count = uninterrupted('recv', () => {
        limitTime(fd, Math.max(1, until - performance.now()))
        return recv(fd, piece, limit - heard.length, 0)
      })
      if (count === 0) break
      heard += piece.toString('latin1', 0, count)
    }
    return heard
  } finally {
    closeSync(fd)
  }
}

/** With a time limit on the socket the kernel does not go on by itself after a signal. */
function uninterrupted(syscall: string, call: () => number): number {
  for (;;) {
    const result = call()
    if (result !== -1) return result
    const errno = lastErrno()
    if (errno !== constants.errno.EINTR) throw new SystemCallError(syscall, errno)
  }
}

/** struct timeval; connect(2) on a Unix socket waits as long as send does. */
function limitTime(fd: number, ms: number): void {
  const timeval = Buffer.alloc(16)
  timeval.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0)
  timeval.writeBigInt64LE(BigInt(Math.floor((ms % 1000) * 1000)), 8)
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO])
    checked('setsockopt', setsockopt(fd, SOL_SOCKET, option, timeval, timeval.length))
}
