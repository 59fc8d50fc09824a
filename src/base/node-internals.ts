/**
 * Every internal of Node.js that this project uses: properties with an underscore, internal events
 * and internal hooks. Each function has a test in test/unit/base/node-internals.test.ts, so that a
 * Node.js that changes one of them fails there first.
 */
import type { ChildProcess } from 'node:child_process'
import type { Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
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
  const read = memberOf(handle, 'verifyError')
  if (typeof read !== 'function') return 'cannot be verified'
  const error: unknown = Reflect.apply(read, handle, [])
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
 * Calls back once after the handshake of a TLS socket of the server side (event `secure`). The
 * public event `secureConnect` belongs to clients, and `secureConnection` to the runtime's own
 * tls.Server. Returns a function that removes the callback.
 */
export function onceSecure(socket: TLSSocket, callback: () => void): () => void {
  socket.once('secure', callback)
  return () => socket.off('secure', callback)
}

/**
 * True if a write to the stream takes the octets before it returns, so that the caller may
 * overwrite them at once. A TLS socket without pending output encrypts inside `write`. Other
 * streams may keep a reference to the octets.
 */
export const takesAtOnce = (stream: Duplex): boolean =>
  // Only a TLS socket has this property. With `instanceof` every program would load node:tls.
  memberOf(stream, 'encrypted') === true && stream.writableLength === 0

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
 * Gives OpenSSL the keys of session tickets at each handshake (`enableTicketKeyCallback`,
 * `onticketkeycallback`): the public option `ticketKeys` cannot renew tickets. Where the runtime
 * has no such hook, `fixedKeys`, 48 octets, serve alone.
 */
export function answerTicketKeys(
  context: SecureContext,
  answer: (name: Buffer, isNew: boolean) => TicketKeyAnswer,
  fixedKeys: () => Buffer | undefined,
): void {
  const native: unknown = context.context
  if (!isObject(native)) return
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
 * Checks the messages of a child before the runtime reads them (`kChannelHandle`, `onread`,
 * `pendingHandle`, `_handleQueue`). The runtime keeps the octets of an unfinished message without a
 * limit. It throws, where no listener can catch it, at a line that is not JSON, at an unexpected
 * acknowledgment, and at a descriptor of unknown kind. So a child may send texts of at most
 * `mostOctets`, and the answers of its runtime about descriptors that it got. `refused` is called
 * once, at the first other message. Later octets are discarded. Throws if the runtime has no such
 * hook.
 */
export function checkMessages(child: ChildProcess, mostOctets: number, refused: () => void): void {
  const key = Object.getOwnPropertySymbols(child).find(({ description }) => description === 'kChannelHandle')
  const channel: unknown = key === undefined ? undefined : Reflect.get(child, key)
  const read = memberOf(channel, 'onread')
  if (!isObject(channel) || typeof read !== 'function')
    throw new Error('the messages of a child cannot be checked: the runtime has no hook for them')
  /** The message that has no end yet, one character per octet. */
  let pending = ''
  let isRefused = false

  const isAllowed = (octets: Buffer): boolean => {
    // The runtime sends a descriptor after the answer to the one before, so at most one is awaited.
    let awaitsAnswer = Array.isArray(Reflect.get(child, '_handleQueue'))
    let from = 0
    for (let end = octets.indexOf(LF); end >= 0; end = octets.indexOf(LF, from)) {
      const line = pending + octets.toString('latin1', from, end)
      if (line.length > mostOctets) return false
      pending = ''
      from = end + 1
      if (awaitsAnswer && HANDLE_ANSWER.test(line)) awaitsAnswer = false
      else if (!isText(line) && !ALL_CLOSED.test(line)) return false
    }
    pending += octets.toString('latin1', from)
    return pending.length <= mostOctets
  }

  const checked = (chunk: unknown): unknown => {
    if (chunk instanceof ArrayBuffer) {
      if (isRefused) return undefined
      const descriptor = memberOf(channel, 'pendingHandle')
      if (isObject(descriptor) || !isAllowed(Buffer.from(chunk))) {
        isRefused = true
        pending = ''
        Reflect.set(channel, 'pendingHandle', null)
        const close = memberOf(descriptor, 'close')
        if (typeof close === 'function') Reflect.apply(close, descriptor, [])
        refused()
        return undefined
      }
    }
    return Reflect.apply(read, channel, [chunk])
  }
  Reflect.set(channel, 'onread', checked)
}

/** The child has received a descriptor, or could not. */
const HANDLE_ANSWER = /^\{"cmd":"NODE_HANDLE_N?ACK"\}$/
/** The child has closed the sockets of a server that closes. Without such a server: ignored. */
const ALL_CLOSED = /^\{"cmd":"NODE_SOCKET_ALL_CLOSED","key":"[^"\\]*"\}$/

/** The runtime decodes octets beyond ASCII to other characters. The JSON is valid in each case. */
function isText(line: string): boolean {
  if (!line.startsWith('"')) return false
  try {
    return typeof JSON.parse(line) === 'string'
  } catch {
    return false
  }
}

const LF = 0x0a

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null

const memberOf = (object: unknown, name: string): unknown => (isObject(object) ? Reflect.get(object, name) : undefined)
