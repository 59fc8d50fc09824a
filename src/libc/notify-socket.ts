import koffi from 'koffi'

const AF_UNIX = 1
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000

const load = () => {
  const libc = koffi.load('libc.so.6')
  return {
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    sendto: libc.func(
      'long sendto(int fd, const void *text, size_t length, int flags, const void *address, uint32_t size)',
    ),
    close: libc.func('int close(int fd)'),
  }
}
let libc: ReturnType<typeof load> | undefined

/**
 * One datagram to the service manager's socket (sd_notify(3)): `READY=1`, `WATCHDOG=1`, … A leading `@` means the
 * abstract name space. Throws if the socket cannot be reached.
 */
export function notifySocket(path: string, state: string): void {
  libc ??= load()
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path, 'utf8')
  const address = Buffer.alloc(2 + name.length)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const fd: unknown = libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)
  if (typeof fd !== 'number' || fd < 0) throw new Error(`socket: errno ${koffi.errno()}`)
  const text = Buffer.from(state, 'utf8')
  const sent: unknown = libc.sendto(fd, text, text.length, 0, address, address.length)
  const errno = koffi.errno()
  libc.close(fd)
  if (Number(sent) !== text.length) throw new Error(`cannot notify ${path}: errno ${errno}`)
}
