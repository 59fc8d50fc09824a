/**
 * A file descriptor as part of a message on a Unix socket (SCM_RIGHTS), with the layout of the
 * message.
 */

import { constants } from 'node:os'
import { addressOf, lastErrno, nativeFunction } from './native-function.ts'
import { MSG_DONTWAIT, MSG_NOSIGNAL, SOL_SOCKET } from './sockets.ts'

const sendmsg = nativeFunction('long sendmsg(int fd, const void *message, int flags)')
const recvmsg = nativeFunction('long recvmsg(int fd, void *message, int flags)')

const SCM_RIGHTS = 1
const MSG_CTRUNC = 0x8
const MSG_CMSG_CLOEXEC = 0x40000000
/** Too many descriptors are in transit. The call can be repeated later. */
const ETOOMANYREFS = 109

/** sizeof(struct msghdr), and the places of the fields that are used here (sendmsg(2), 64 bits). */
const MSGHDR = 56
const [IOV, IOV_COUNT, CONTROL, CONTROL_LENGTH, FLAGS] = [16, 24, 32, 40, 48]
const IOVEC = 16
/** struct cmsghdr and one descriptor. CMSG_LEN(4) leaves no room for a second one. */
const CMSG_LENGTH = 20
const CMSG_DATA = 16

/** Maximum octets of one message. */
export const MAX_PASSED_OCTETS = 262_144

/**
 * One message with room for one descriptor. It is made once, because its parts point to each other.
 */
const head = Buffer.allocUnsafeSlow(MSGHDR + IOVEC + 24)
const content = Buffer.allocUnsafeSlow(MAX_PASSED_OCTETS)
const [IOVEC_AT, CONTROL_AT] = [MSGHDR, MSGHDR + IOVEC]
let isLaidOut = false

function layOut(octets: number): void {
  if (!isLaidOut) {
    const base = BigInt(addressOf(head))
    head.fill(0)
    head.writeBigUInt64LE(base + BigInt(IOVEC_AT), IOV)
    head.writeBigUInt64LE(1n, IOV_COUNT)
    head.writeBigUInt64LE(base + BigInt(CONTROL_AT), CONTROL)
    head.writeBigUInt64LE(BigInt(addressOf(content)), IOVEC_AT)
    isLaidOut = true
  }
  head.writeUInt32LE(octets, IOVEC_AT + 8)
  head.writeUInt32LE(CMSG_LENGTH, CONTROL_LENGTH)
}

/**
 * Sends a text of one octet per character, and octets after it, through a Unix stream socket. A
 * duplicate of a descriptor goes with the first octet (SCM_RIGHTS, unix(7)).
 *
 * Returns the number of octets that the kernel accepted, with the descriptor if it is not 0, or a
 * negative errno (EAGAIN: the queue is full). Never waits; the caller's descriptor stays open.
 * Throws RangeError for more than MAX_PASSED_OCTETS.
 */
export function sendDescriptor(socket: number, descriptor: number, text: string, octets?: Uint8Array): number {
  const size = text.length + (octets?.length ?? 0)
  if (size === 0 || size > MAX_PASSED_OCTETS) throw new RangeError(`${size} octets cannot carry a descriptor`)
  const end = content.write(text, 0, 'latin1')
  if (octets !== undefined) content.set(octets, end)
  layOut(size)
  head.writeUInt32LE(CMSG_LENGTH, CONTROL_AT)
  head.writeInt32LE(SOL_SOCKET, CONTROL_AT + 8)
  head.writeInt32LE(SCM_RIGHTS, CONTROL_AT + 12)
  head.writeInt32LE(descriptor, CONTROL_AT + CMSG_DATA)
  const sent = sendmsg(socket, head, MSG_DONTWAIT | MSG_NOSIGNAL)
  if (sent >= 0) return sent
  const errno = lastErrno()
  return errno === ETOOMANYREFS ? -constants.errno.EAGAIN : -errno
}

/**
 * The received octets, none at the end of the stream, and the descriptor that came with some of
 * them. The caller owns the descriptor; no program started later inherits it. Null: the process had
 * no room for the descriptor among its open files, and the kernel closed it.
 */
export type Received = { readonly octets: Buffer; readonly descriptor: number | null | undefined }

/**
 * Receives the octets of the other end in order, up to the first descriptor and the octets that
 * were sent with it. Returns a negative errno if there are none (EAGAIN) or if the call fails.
 * Never waits.
 */
export function receiveDescriptor(socket: number): Received | number {
  layOut(MAX_PASSED_OCTETS)
  const count = recvmsg(socket, head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
  if (count < 0) return -lastErrno()
  return { octets: Buffer.from(content.subarray(0, count)), descriptor: receivedDescriptor() }
}

function receivedDescriptor(): number | null | undefined {
  const isDescriptor =
    head.readUInt32LE(CONTROL_LENGTH) >= CMSG_LENGTH &&
    head.readInt32LE(CONTROL_AT + 8) === SOL_SOCKET &&
    head.readInt32LE(CONTROL_AT + 12) === SCM_RIGHTS
  if (isDescriptor) return head.readInt32LE(CONTROL_AT + CMSG_DATA)
  return (head.readInt32LE(FLAGS) & MSG_CTRUNC) === 0 ? undefined : null
}
