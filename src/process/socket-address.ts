/** Addresses of servers: their text form, and which of them only this host can reach. */
import { isIPv4, isIPv6 } from 'node:net'
import { UsageFault } from '../base/errors.ts'
import { LOOPBACK, parseIpAddress } from '../wire/ip-address.ts'

/** Where a server listens or a client connects. */
export type SocketAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  /** An inherited listening socket. */
  | { readonly kind: 'descriptor'; readonly fd: number }

/**
 * `192.0.2.1:110`, `[2001:db8::1]:110`, `*:110` (every address, both families), `localhost:110`,
 * `110`, `unix:/run/x.sock`, `fd:3`. Port 0 means a free one. Undefined for anything else.
 */
export function parseSocketAddress(text: string): SocketAddress | undefined {
  if (text.startsWith('unix:/')) return { kind: 'unix', path: text.slice('unix:'.length) }
  const fd = /^fd:(\d{1,4})$/.exec(text)?.[1]
  if (fd !== undefined) return { kind: 'descriptor', fd: Number(fd) }
  const { bracketed, plain, port } =
    /^(?:(?:\[(?<bracketed>[^\]]+)\]|(?<plain>[^:[\]]*)):)?(?<port>\d{1,5})$/.exec(text)?.groups ?? {}
  if (port === undefined || Number(port) > 65535) return undefined
  if (bracketed !== undefined)
    return isIPv6(bracketed) ? { kind: 'tcp', host: bracketed, port: Number(port) } : undefined
  const host = plain === undefined || plain === '' || plain === '*' ? '::' : plain
  const isName = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$/.test(host) && !/^[\d.]+$/.test(host)
  return host === '::' || isIPv4(host) || isName ? { kind: 'tcp', host, port: Number(port) } : undefined
}

/** Inverse of parseSocketAddress. */
export function formatSocketAddress(address: SocketAddress): string {
  switch (address.kind) {
    case 'tcp':
      // Among hosts only an IPv6 address has a colon.
      return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
    case 'unix':
      return `unix:${address.path}`
    case 'descriptor':
      return `fd:${address.fd}`
  }
}

/**
 * Checks the address of a listener without authentication.
 * @throws UsageFault if other hosts can reach the address.
 */
export function requireLoopback(address: SocketAddress, setting: string): void {
  if (address.kind !== 'tcp') return
  const ip = parseIpAddress(address.host === 'localhost' ? '127.0.0.1' : address.host)
  if (ip === undefined || !LOOPBACK.has(ip)) {
    throw new UsageFault(
      `${setting}: ${formatSocketAddress(address)} can be reached from elsewhere: use 127.0.0.1:PORT or [::1]:PORT`,
    )
  }
}
