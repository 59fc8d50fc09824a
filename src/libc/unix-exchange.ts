import { closeSync } from 'node:fs'
import { checked, nativeFunction } from './native-function.ts'

const socketCall = nativeFunction('int socket(int domain, int type, int protocol)')
const connectCall = nativeFunction('int connect(int fd, const void *address, int size)')
const setsockopt = nativeFunction('int setsockopt(int fd, int level, int option, const void *value, int size)')
const send = nativeFunction('long send(int fd, const void *octets, size_t size, int flags)')
const recv = nativeFunction('long recv(int fd, void *octets, size_t size, int flags)')

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const [SO_RCVTIMEO, SO_SNDTIMEO] = [20, 21]
const MSG_NOSIGNAL = 0x4000
/** sizeof(sun_path), with its NUL. */
const LONGEST_PATH = 108

/**
 * Connects to a Unix socket, sends a text and answers what comes back up to the first LF or the end, at most `limit` octets. Blocks the whole process, at most twice
 * the time given: for a program that does nothing else, and must not pay for loading an event-driven network. Throws SystemCallError (EAGAIN: too late).
 */
export function unixExchange(path: string, text: string, limit: number, timeoutMs: number): string {
  const name = Buffer.from(path)
  if (name.length >= LONGEST_PATH) throw new RangeError(`the path of a Unix socket ends at ${LONGEST_PATH - 1} octets`)
  const address = Buffer.alloc(2 + LONGEST_PATH)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const until = performance.now() + timeoutMs
  const fd = checked('socket', socketCall(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))
  try {
    limitTime(fd, timeoutMs)
    checked('connect', connectCall(fd, address, address.length))
    const question = Buffer.from(text)
    checked('send', send(fd, question, question.length, MSG_NOSIGNAL))
    let heard = ''
    const piece = Buffer.alloc(limit)
    while (heard.length < limit && !heard.includes('\n')) {
      limitTime(fd, Math.max(1, until - performance.now()))
      const count = checked('recv', recv(fd, piece, limit - heard.length, 0))
      if (count === 0) break
      heard += piece.toString('latin1', 0, count)
    }
    return heard
  } finally {
    closeSync(fd)
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
