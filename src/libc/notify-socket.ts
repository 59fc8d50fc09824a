import { checked, nativeFunction } from './native-function.ts'

const AF_UNIX = 1
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000

const socket = nativeFunction('int socket(int domain, int type, int protocol)')
const sendto = nativeFunction(
  'long sendto(int fd, const void *text, size_t length, int flags, const void *address, uint32_t size)',
)
const close = nativeFunction('int close(int fd)')

/**
 * One datagram to the service manager's socket (sd_notify(3)): `READY=1`, `WATCHDOG=1`, … A leading `@` means the
 * abstract name space. Throws SystemCallError if the socket cannot be reached.
 */
export function notifySocket(path: string, state: string): void {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path, 'utf8')
  const address = Buffer.alloc(2 + name.length)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const fd = checked('socket', socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0))
  try {
    const text = Buffer.from(state, 'utf8')
    checked(`cannot notify ${path}: sendto`, sendto(fd, text, text.length, 0, address, address.length))
  } finally {
    close(fd)
  }
}
