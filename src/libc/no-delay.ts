import { nativeFunction } from './native-function.ts'

const setsockopt = nativeFunction('int setsockopt(int fd, int level, int option, const void *value, int size)')
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const ON = Buffer.from(Uint32Array.of(1).buffer)

/** Connections accepted from this listening socket from now on send at once what is written (tcp(7)). Without effect on other sockets than TCP. */
export function inheritNoDelay(listening: number): void {
  setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, ON, ON.length)
}
