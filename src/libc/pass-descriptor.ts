import { constants } from 'node:os'
import { addressOf, lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const sendmsg = nativeFunction('long sendmsg(int fd, const void *message, int flags)')
const recvmsg = nativeFunction('long recvmsg(int fd, void *message, int flags)')

const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000

/** sizeof(struct msghdr), and where in it the length of the control data stands (sendmsg(2), 64 bits). */
const MSGHDR = 56
const [NAME, IOV, IOV_COUNT, CONTROL, CONTROL_LENGTH] = [0, 16, 24, 32, 40]
const IOVEC = 16
/** struct cmsghdr and one descriptor; CMSG_LEN(4), so that there is room for no second one. */
const CMSG_LENGTH = 20
const CMSG_DATA = 16

/** One message of one octet with room for one descriptor, made once: its parts point to each other. */
const memory = Buffer.allocUnsafeSlow(MSGHDR + IOVEC + 8 + 24)
const [MESSAGE_AT, IOVEC_AT, OCTET_AT, CONTROL_AT] = [0, MSGHDR, MSGHDR + IOVEC, MSGHDR + IOVEC + 8]
let isLaidOut = false

function layOut(): void {
  if (!isLaidOut) {
    const base = BigInt(addressOf(memory))
    memory.fill(0)
    memory.writeBigUInt64LE(0n, MESSAGE_AT + NAME)
    memory.writeBigUInt64LE(base + BigInt(IOVEC_AT), MESSAGE_AT + IOV)
    memory.writeBigUInt64LE(1n, MESSAGE_AT + IOV_COUNT)
    memory.writeBigUInt64LE(base + BigInt(CONTROL_AT), MESSAGE_AT + CONTROL)
    memory.writeBigUInt64LE(base + BigInt(OCTET_AT), IOVEC_AT)
    memory.writeBigUInt64LE(1n, IOVEC_AT + 8)
    isLaidOut = true
  }
  memory.writeUInt32LE(CMSG_LENGTH, MESSAGE_AT + CONTROL_LENGTH)
}

const isNotNow = (errno: number): boolean => errno === constants.errno.EAGAIN || errno === constants.errno.EINTR

/**
 * Sends a duplicate of a descriptor through a Unix stream socket (SCM_RIGHTS, unix(7)), with one octet to carry it. Never waits:
 * false if the socket's queue is full. The caller's own descriptor stays open. Throws SystemCallError.
 */
export function sendDescriptor(socket: number, descriptor: number): boolean {
  layOut()
  memory.writeUInt32LE(CMSG_LENGTH, CONTROL_AT)
  memory.writeUInt32LE(0, CONTROL_AT + 4)
  memory.writeInt32LE(SOL_SOCKET, CONTROL_AT + 8)
  memory.writeInt32LE(SCM_RIGHTS, CONTROL_AT + 12)
  memory.writeInt32LE(descriptor, CONTROL_AT + CMSG_DATA)
  if (sendmsg(socket, memory, MSG_DONTWAIT | MSG_NOSIGNAL) === 1) return true
  const errno = lastErrno()
  // ETOOMANYREFS: too many descriptors are under way, which passes.
  if (isNotNow(errno) || errno === ETOOMANYREFS) return false
  throw new SystemCallError('sendmsg', errno)
}

const ETOOMANYREFS = 109

/**
 * Takes the next descriptor that sendDescriptor put into the other end, in order. Undefined if nothing has arrived, or the other end is
 * closed. Null if an octet came without one: this process may have had no room for another open file, and then the kernel has closed
 * it. Never waits. The descriptor is the caller's, and no program started later inherits it. Throws SystemCallError.
 */
export function receiveDescriptor(socket: number): number | null | undefined {
  layOut()
  const count = recvmsg(socket, memory, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
  if (count < 0) {
    const errno = lastErrno()
    if (isNotNow(errno)) return undefined
    throw new SystemCallError('recvmsg', errno)
  }
  if (count === 0) return undefined
  const isDescriptor =
    memory.readUInt32LE(MESSAGE_AT + CONTROL_LENGTH) >= CMSG_LENGTH &&
    memory.readInt32LE(CONTROL_AT + 8) === SOL_SOCKET &&
    memory.readInt32LE(CONTROL_AT + 12) === SCM_RIGHTS
  return isDescriptor ? memory.readInt32LE(CONTROL_AT + CMSG_DATA) : null
}
