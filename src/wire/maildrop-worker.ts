import * as v from 'valibot'

const seconds = v.pipe(v.number(), v.minValue(0))

const usedTicket = v.strictObject({ id: v.pipe(v.string(), v.maxLength(32)), expires: v.number() })

export type UsedTicket = v.InferOutput<typeof usedTicket>

/** What a reload can change for the sessions of a worker. */
const settings = v.strictObject({
  compat: v.picklist(['none', 'qmail']),
  sizes: v.picklist(['wire', 'file']),
  extraBlank: v.boolean(),
  lock: v.picklist(['none', 'exclusive']),
  /** Seconds without a command. */
  idleTime: seconds,
  /**
   * Seconds without a session after which the process ends with status 0. Connections that wait by
   * then are the next one's.
   */
  workerIdle: seconds,
  /** What CAPA answers after login. */
  capabilities: v.strictObject({
    user: v.boolean(),
    sasl: v.array(v.string()),
    loginDelay: v.number(),
    implementation: v.string(),
  }),
})

export type MaildropWorkerSettings = v.InferOutput<typeof settings>

const start = v.strictObject({
  type: v.literal('start'),
  /**
   * The owner whose mail is served: the ids to take. Null where the monitor is not root and the
   * worker has them already.
   */
  ids: v.nullable(
    v.strictObject({ uid: v.pipe(v.number(), v.integer(), v.minValue(1)), gid: v.pipe(v.number(), v.integer()) }),
  ),
  /** Key of the session tickets: 32 octets, hexadecimal. */
  key: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  /**
   * The account of the login processes, which alone may connect besides root and the owner; null
   * where all are one user.
   */
  loginUid: v.nullable(v.pipe(v.number(), v.integer())),
  /** Tickets that the worker before this one took, and until when (Unix seconds) they would have been good. */
  usedTickets: v.array(usedTicket),
  logLevel: v.picklist(['debug', 'info', 'warn', 'error']),
  /** What carries the connections. */
  engine: v.picklist(['auto', 'node', 'epoll']),
  settings,
})

const change = v.strictObject({ type: v.literal('settings'), settings })

/** Sent to a worker that runs: its sessions from now on have these settings. */
export type MaildropWorkerChange = v.InferOutput<typeof change>

/** Throws if the message is not one. */
export const parseMaildropWorkerChange = (message: unknown): MaildropWorkerChange => v.parse(change, message)

/**
 * What popup's monitor says to a pop3d worker on its control channel, first of all and only once. The listening Unix
 * socket is descriptor 4. The worker answers `{"type":"ready"}`, and before it ends
 * in order which tickets it took; the end of the channel is the end of the worker.
 */
export type MaildropWorkerStart = v.InferOutput<typeof start>

/** Throws if the message is not one: monitor and worker are then of different versions. */
export const parseMaildropWorkerStart = (message: unknown): MaildropWorkerStart => v.parse(start, message)

const news = v.variant('type', [
  v.strictObject({ type: v.literal('ready') }),
  /** It ends: tickets that have not expired, for the next worker. */
  v.strictObject({ type: v.literal('usedTickets'), tickets: v.pipe(v.array(usedTicket), v.maxLength(100_000)) }),
])

export type MaildropWorkerNews = v.InferOutput<typeof news>

/** Reads what a worker says; undefined if it is nothing that a worker says. */
export function parseMaildropWorkerNews(message: unknown): MaildropWorkerNews | undefined {
  const { success, output } = v.safeParse(news, message)
  return success ? output : undefined
}
