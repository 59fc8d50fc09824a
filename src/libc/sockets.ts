/**
 * System calls for sockets: names and peers, accepting, reading and sending without a wait, Unix
 * sockets.
 */
import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { constants } from 'node:os'
import { descriptorOf } from '../base/node-internals.ts'
import { checked, lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const socket = nativeFunction('int socket(int domain, int type, int protocol)')
const socketpair = nativeFunction('int socketpair(int domain, int type, int protocol, void *descriptors)')
const connect = nativeFunction('int connect(int fd, const void *address, int size)')
const accept4 = nativeFunction('int accept4(int fd, void *address, void *length, int flags)')
const getsockname = nativeFunction('int getsockname(int fd, void *address, void *length)')
const getsockopt = nativeFunction('int getsockopt(int fd, int level, int option, void *value, void *length)')
const setsockopt = nativeFunction('int setsockopt(int fd, int level, int option, const void *value, int size)')
const recv = nativeFunction('long recv(int fd, void *buffer, size_t size, int flags)')
const send = nativeFunction('long send(int fd, const void *octets, size_t size, int flags)')
const sendto = nativeFunction(
  'long sendto(int fd, const void *octets, size_t size, int flags, const void *address, uint32_t length)',
)
const shutdown = nativeFunction('int shutdown(int fd, int how)')

const { EAGAIN, EINTR, ENOTSOCK } = constants.errno

const [AF_UNIX, AF_INET, AF_INET6] = [1, 2, 10]
const [SOCK_STREAM, SOCK_DGRAM] = [1, 2]
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
const [SO_TYPE, SO_PEERCRED, SO_RCVTIMEO, SO_SNDTIMEO] = [3, 17, 20, 21]
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
const MSG_MORE = 0x8000
const SHUT_WR = 1
/** struct sockaddr_storage. */
const ADDRESS_BYTES = 128
/** sizeof(sun_path), with its NUL. */
const PATH_BYTES = 108

// --- What a descriptor is

/** The address of a socket. A Unix socket without a name has the path ''. */
export type SocketName =
  | { readonly family: 'unix'; readonly path: string }
  /** 4 or 16 octets. */
  | { readonly family: 'internet'; readonly octets: Uint8Array; readonly port: number }

/**
 * The address to which a socket is bound (getsockname(2)). Undefined for a descriptor that is not a
 * socket, or for another address family. Throws SystemCallError for a closed descriptor.
 */
export function socketName(descriptor: number): SocketName | undefined {
  const address = Buffer.alloc(ADDRESS_BYTES)
  const length = lengthOf(address)
  if (getsockname(descriptor, address, length) === -1) {
    const errno = lastErrno()
    if (errno === ENOTSOCK) return undefined
    throw new SystemCallError('getsockname', errno)
  }
  return readSocketName(address, length.readUInt32LE(0))
}

/** The octets of an internet address are a view of `address`. */
function readSocketName(address: Buffer, length: number): SocketName | undefined {
  switch (address.readUInt16LE(0)) {
    case AF_UNIX: {
      const name = address.toString('utf8', 2, Math.min(length, ADDRESS_BYTES))
      // An abstract name begins with NUL; a path ends with one.
      return { family: 'unix', path: name.startsWith('\0') ? name : name.replace(/\0.*$/s, '') }
    }
    case AF_INET:
      return { family: 'internet', octets: address.subarray(4, 8), port: address.readUInt16BE(2) }
    case AF_INET6:
      return { family: 'internet', octets: address.subarray(8, 24), port: address.readUInt16BE(2) }
    default:
      return undefined
  }
}

/** True for a stream socket; false for any other descriptor, and for a closed one. */
export function isStreamSocket(descriptor: number): boolean {
  const type = Buffer.alloc(4)
  return getsockopt(descriptor, SOL_SOCKET, SO_TYPE, type, lengthOf(type)) === 0 && type.readUInt32LE(0) === SOCK_STREAM
}

/** The process at the other end of a Unix socket, from the kernel (SO_PEERCRED, unix(7)). */
export type PeerCredentials = { readonly pid: number; readonly uid: number; readonly gid: number }

/** The kernel's value for a missing id. */
const NO_ID = 0xffff_ffff

/**
 * Credentials of the peer at the time it connected. Throws if the socket is no connected Unix
 * socket.
 */
export function peerCredentials(connection: Socket): PeerCredentials {
  const value = Buffer.alloc(12)
  const result = getsockopt(descriptorOf(connection), SOL_SOCKET, SO_PEERCRED, value, lengthOf(value))
  checked('getsockopt(SO_PEERCRED)', result)
  const uid = value.readUInt32LE(4)
  // For a TCP socket the call also succeeds, with ids that name no account.
  if (uid === NO_ID) throw new TypeError('the socket has no peer with an account: it is no connected Unix socket')
  return { pid: value.readInt32LE(0), uid, gid: value.readUInt32LE(8) }
}

function lengthOf(memory: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(memory.length)
  return length
}

// --- Connections of clients

/** An accepted connection: its descriptor, which the caller owns, and its other end. */
export type AcceptedConnection = { readonly fd: number; readonly peer: SocketName | undefined }

const peerAddress = Buffer.alloc(ADDRESS_BYTES)
const peerLength = Buffer.alloc(4)

/**
 * Accepts the next connection of a non-blocking listening socket; a negative errno if there is
 * none. The descriptor is close-on-exec; `blocking`: for a program that is started on the
 * connection.
 */
export function acceptFrom(
  listening: number,
  { blocking }: { readonly blocking: boolean },
): AcceptedConnection | number {
  peerLength.writeUInt32LE(ADDRESS_BYTES)
  const fd = accept4(listening, peerAddress, peerLength, SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK))
  return fd < 0 ? -lastErrno() : { fd, peer: readSocketName(peerAddress, peerLength.readUInt32LE(0)) }
}

const ON = Buffer.from(Uint32Array.of(1).buffer)

/**
 * Connections that this listening socket accepts from now on send at once (TCP_NODELAY, tcp(7)). No
 * effect on sockets other than TCP.
 */
export function inheritNoDelay(listening: number): void {
  setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, ON, ON.length)
}

/**
 * Reads the octets that have arrived into `buffer`. Returns their number, 0 at the end of the
 * stream, or a negative errno. Never waits.
 */
export function receiveInto(fd: number, buffer: Uint8Array): number {
  const count = recv(fd, buffer, buffer.length, MSG_DONTWAIT)
  return count < 0 ? -lastErrno() : count
}

/**
 * Reads at most `size` octets that have arrived and not one more, so that the rest stays for
 * another process. Empty at the end of the stream; undefined if nothing has arrived yet. Never
 * waits. Throws SystemCallError.
 */
export function receive(descriptor: number, size: number): Buffer | undefined {
  const buffer = Buffer.alloc(size)
  const count = receiveInto(descriptor, buffer)
  if (count >= 0) return buffer.subarray(0, count)
  if (isLater(count)) return undefined
  throw new SystemCallError('recv', -count)
}

const sender =
  (flags: number) =>
  (fd: number, buffer: Uint8Array, octets: number): number => {
    const count = send(fd, buffer, octets, MSG_DONTWAIT | MSG_NOSIGNAL | flags)
    return count < 0 ? -lastErrno() : count
  }

/**
 * Sends the first octets of `buffer`. Returns the number that the kernel accepted, or a negative
 * errno. Never waits, and raises no signal.
 */
export const sendFrom = sender(0)

/**
 * Like sendFrom, if more octets or the end of the connection follow at once. The kernel holds the
 * octets back until then (MSG_MORE, send(2)).
 */
export const sendMoreFrom = sender(MSG_MORE)

/** True for a negative errno after which the call can be repeated later. */
export const isLater = (result: number): boolean => result === -EAGAIN || result === -EINTR

/** Ends the output; input of the other end is still read (shutdown(2)). Throws SystemCallError. */
export const endOutput = (descriptor: number): void => void checked('shutdown', shutdown(descriptor, SHUT_WR))

// --- Unix sockets

/**
 * A Unix stream socket, not connected, close-on-exec. The caller closes it. Throws SystemCallError.
 */
export const unixSocket = ({ blocking }: { readonly blocking: boolean }): number =>
  checked('socket', socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0))

/**
 * A connected pair of Unix stream sockets: blocking, close-on-exec. The caller closes them. Throws
 * SystemCallError (EMFILE).
 */
export function openSocketPair(): readonly [number, number] {
  const descriptors = Buffer.alloc(8)
  checked('socketpair', socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, descriptors))
  return [descriptors.readInt32LE(0), descriptors.readInt32LE(4)]
}

/**
 * Connects to the listener at a path. On a non-blocking socket a full queue of the listener is an
 * error (EAGAIN). Throws
 * SystemCallError, RangeError.
 */
export function connectUnix(descriptor: number, path: string): void {
  const address = unixAddress(path, PATH_BYTES)
  checked('connect', connect(descriptor, address, address.length))
}

/** struct sockaddr_un, with zeros up to `size` octets of path. */
function unixAddress(path: string, size = 0): Buffer {
  const name = Buffer.from(path)
  if (name.length >= PATH_BYTES) throw new RangeError(`the path of a Unix socket has at most ${PATH_BYTES - 1} octets`)
  const address = Buffer.alloc(2 + Math.max(name.length, size))
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  return address
}

/**
 * Connects to a Unix socket, sends a text and returns the answer up to the first LF or the end, at
 * most `limit` octets. Blocks the process for at most twice the given time, so it is only for a
 * program that does nothing else and must start fast. Throws SystemCallError (EAGAIN: too late).
 */
export function unixExchange(path: string, text: string, limit: number, timeoutMs: number): string {
  const until = performance.now() + timeoutMs
  const fd = unixSocket({ blocking: true })
  try {
    setTimeouts(fd, timeoutMs)
    connectUnix(fd, path)
    const query = Buffer.from(text)
    uninterrupted('send', () => send(fd, query, query.length, MSG_NOSIGNAL))
    let answer = ''
    const piece = Buffer.alloc(limit)
    while (answer.length < limit && !answer.includes('\n')) {
      const count = uninterrupted('recv', () => {
        setTimeouts(fd, Math.max(1, until - performance.now()))
        return recv(fd, piece, limit - answer.length, 0)
      })
      if (count === 0) break
      answer += piece.toString('latin1', 0, count)
    }
    return answer
  } finally {
    closeSync(fd)
  }
}

/** The kernel does not restart a call on a socket with a timeout after a signal. */
function uninterrupted(syscall: string, call: () => number): number {
  for (;;) {
    const result = call()
    if (result !== -1) return result
    const errno = lastErrno()
    if (errno !== EINTR) throw new SystemCallError(syscall, errno)
  }
}

/** struct timeval; connect(2) on a Unix socket waits as long as send does. */
function setTimeouts(fd: number, ms: number): void {
  const timeval = Buffer.alloc(16)
  timeval.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0)
  timeval.writeBigInt64LE(BigInt(Math.floor((ms % 1000) * 1000)), 8)
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO])
    checked('setsockopt', setsockopt(fd, SOL_SOCKET, option, timeval, timeval.length))
}

/**
 * Sends one datagram to the service manager's socket (sd_notify(3)): `READY=1`, `WATCHDOG=1`, … A
 * leading `@` means the abstract name space. Throws SystemCallError if the socket cannot be
 * reached.
 */
export function notifySocket(path: string, state: string): void {
  const address = unixAddress(path.replace(/^@/, '\0'))
  const fd = checked('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0))
  try {
    const text = Buffer.from(state, 'utf8')
    checked(`cannot notify ${path}: sendto`, sendto(fd, text, text.length, 0, address, address.length))
  } finally {
    closeSync(fd)
  }
}
