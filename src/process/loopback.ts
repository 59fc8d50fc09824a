import { UsageFault } from '../base/exit-status.ts'
import { LOOPBACK, parseIpAddress } from '../wire/ip-address.ts'
import { formatSocketAddress, type SocketAddress } from './socket-address.ts'

/**
 * For listeners where nobody proves who he is. @throws UsageFault unless nobody but this host can
 * reach the address.
 */
export function requireLoopback(address: SocketAddress, setting: string): void {
  if (address.type !== 'tcp') return
  const ip = parseIpAddress(address.host === 'localhost' ? '127.0.0.1' : address.host)
  if (ip === undefined || !LOOPBACK.has(ip)) {
    throw new UsageFault(
      `${setting}: ${formatSocketAddress(address)} can be reached from elsewhere: use 127.0.0.1:PORT or [::1]:PORT`,
    )
  }
}
