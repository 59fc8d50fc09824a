/**
 * Every internal of Node.js that this project uses: properties with an underscore, internal events
 * and internal hooks. Each function has a test in test/unit/base/node-internals.test.ts, so that a
 * Node.js that changes one of them fails there first.
 */
import type { ChildProcess } from 'node:child_process'
import type { Server, Socket } from 'node:net'
import type { SecureContext, TLSSocket } from 'node:tls'

/**
 * The file descriptor of a socket or server (`_handle.fd`), which system calls need (getsockopt,
 * posix_spawn). Throws if there is none: the socket is closed, or was never open.
 */
export function descriptorOf(socket: Socket | Server): number {
  const fd = memberOf(Reflect.get(socket, '_handle'), 'fd')
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket has no file descriptor: it is closed')
  return fd
}

/**
 * The reason why the client's certificate is not trusted; undefined if it is
 * (`_handle.verifyError`). Only the tls.Server of the runtime gets this value otherwise. If the
 * handle has no answer, no certificate is trusted.
 */
export function verifyErrorOf(socket: TLSSocket): string | undefined {
  const handle: unknown = Reflect.get(socket, '_handle')
  const ask = memberOf(handle, 'verifyError')
  if (typeof ask !== 'function') return 'cannot be verified'
  const error: unknown = Reflect.apply(ask, handle, [])
  if (error === null || error === undefined) return undefined
  return error instanceof Error ? error.message : 'not trusted'
}

/**
 * Destroys a TLS socket at an error of the TLS layer after the handshake. The runtime reports such
 * an error as `_tlsError` and does not destroy the socket itself unless its own tls.Server made it.
 */
export function destroyOnTlsError(socket: TLSSocket): void {
  socket.on('_tlsError', (error: Error) => socket.destroy(error))
}

/**
 * Removes the runtime's `newListener` hook of a TLS socket. The hook waits for a `keylog` listener,
 * which this project never adds, and doubles the cost of every other listener.
 */
export function removeKeylogHook(socket: TLSSocket): void {
  socket.removeAllListeners('newListener')
}

/**
 * Values for OpenSSL for a ticket (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)): a status, the HMAC key
 * and AES key, and the name and vector of a new ticket.
 */
export type TicketKeyAnswer =
  | readonly [status: -1]
  | readonly [status: 0 | 2, hmac: Buffer, aes: Buffer]
  | readonly [status: 1, hmac: Buffer, aes: Buffer, name: Buffer, vector: Buffer]

/**
 * Lets OpenSSL ask for the keys of session tickets at each handshake (`enableTicketKeyCallback`,
 * `onticketkeycallback`): the public option `ticketKeys` cannot renew tickets. Where the runtime
 * has no such hook, `fixedKeys`, 48 octets, serve alone.
 */
export function answerTicketKeys(
  context: SecureContext,
  answer: (name: Buffer, isNew: boolean) => TicketKeyAnswer,
  fixedKeys: () => Buffer | undefined,
): void {
  const native: unknown = context.context
  if (typeof native !== 'object' || native === null) return
  const enable = memberOf(native, 'enableTicketKeyCallback')
  if (typeof enable === 'function') {
    const callback = (name: Buffer, _vector: Buffer, isNew: boolean) => answer(name, isNew)
    Reflect.set(native, 'onticketkeycallback', callback)
    Reflect.apply(enable, native, [])
    return
  }
  const set = memberOf(native, 'setTicketKeys')
  const keys = fixedKeys()
  if (typeof set === 'function' && keys !== undefined) Reflect.apply(set, native, [keys])
}

/**
 * Bounds the messages of a child (`kChannelHandle`, `onread`), because the runtime keeps the octets
 * of an unfinished message without a limit. `exceeded` is called once, at the first message that is
 * longer than `mostOctets`. Later octets are discarded. Throws if the runtime has no such hook.
 */
export function limitMessages(child: ChildProcess, mostOctets: number, exceeded: () => void): void {
  const key = Object.getOwnPropertySymbols(child).find(({ description }) => description === 'kChannelHandle')
  const channel: unknown = key === undefined ? undefined : Reflect.get(child, key)
  const read = memberOf(channel, 'onread')
  if (typeof channel !== 'object' || channel === null || typeof read !== 'function')
    throw new Error('the messages of a child cannot be bounded: the runtime has no hook for them')
  /** Octets of the message that has no end yet. */
  let pending = 0
  let isExceeded = false
  const bounded = (chunk: unknown): unknown => {
    if (chunk instanceof ArrayBuffer) {
      if (isExceeded) return undefined
      const octets = new Uint8Array(chunk)
      const end = octets.indexOf(LF)
      if (pending + (end < 0 ? octets.length : end) > mostOctets) {
        isExceeded = true
        exceeded()
        return undefined
      }
      pending = end < 0 ? pending + octets.length : octets.length - octets.lastIndexOf(LF) - 1
    }
    return Reflect.apply(read, channel, [chunk])
  }
  Reflect.set(channel, 'onread', bounded)
}

const LF = 0x0a

const memberOf = (object: unknown, name: string): unknown =>
  typeof object === 'object' && object !== null ? Reflect.get(object, name) : undefined
