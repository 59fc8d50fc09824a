import * as v from 'valibot'

/**
 * What popup's keeper and a pop3d worker say to each other on the worker's control channel: one JSON object a line.
 *
 * The keeper sends `start` once; the worker answers `ready` when it accepts connections on its inherited descriptor 4. Each
 * connection begins with a session ticket line (session-ticket.ts), LF at its end; the POP3 dialogue follows at once.
 *
 * A worker that has had no session for `workerIdle` seconds sends `idle`. If every ticket that the keeper made for it has
 * been used or is void by now, the keeper answers `retire`, makes no further ticket for it, and starts another worker
 * when one is needed; else it stays silent, and the worker asks again later. So no ticket meets a worker that has gone.
 */
const start = v.strictObject({
  type: v.literal('start'),
  /** The owner of the mail: the worker takes these ids before it reads a byte of a client. Never 0. */
  uid: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  gid: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** Key of the session tickets: 32 random octets, hexadecimal. */
  key: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  logLevel: v.picklist(['debug', 'info', 'warn', 'error']),
  compat: v.picklist(['none', 'qmail']),
  sizes: v.picklist(['wire', 'file']),
  extraBlank: v.boolean(),
  lock: v.picklist(['none', 'exclusive']),
  /** Seconds. */
  idleTime: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** Seconds. */
  workerIdle: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** Lines of the CAPA response after login, as capabilityLines('TRANSACTION', …) makes them. */
  capabilities: v.pipe(v.array(v.pipe(v.string(), v.regex(/^[\x21-\x7e][\x20-\x7e]{0,508}$/))), v.readonly()),
})

const toPop3dWorker = v.variant('type', [start, v.strictObject({ type: v.literal('retire') })])
const fromPop3dWorker = v.variant('type', [
  v.strictObject({ type: v.literal('ready') }),
  v.strictObject({ type: v.literal('idle') }),
])

export type ToPop3dWorker = v.InferOutput<typeof toPop3dWorker>
export type Pop3dWorkerStart = v.InferOutput<typeof start>
export type FromPop3dWorker = v.InferOutput<typeof fromPop3dWorker>

/** Reads a message of the keeper; undefined if it is none. */
export function parseToPop3dWorker(message: unknown): ToPop3dWorker | undefined {
  const { success, output } = v.safeParse(toPop3dWorker, message)
  return success ? output : undefined
}

/** Reads a message of a worker, which the keeper takes for hostile; undefined if it is none. */
export function parseFromPop3dWorker(message: unknown): FromPop3dWorker | undefined {
  const { success, output } = v.safeParse(fromPop3dWorker, message)
  return success ? output : undefined
}
