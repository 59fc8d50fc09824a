import * as v from 'valibot'

const socketAddress = v.variant('type', [
  v.object({ type: v.literal('tcp'), host: v.string(), port: v.number() }),
  v.object({ type: v.literal('unix'), path: v.string() }),
  v.object({ type: v.literal('descriptor'), fd: v.number() }),
])

const certificate = v.object({
  cert: v.string(),
  key: v.string(),
  keyType: v.picklist(['rsa', 'ec', 'ed25519']),
  names: v.array(v.string()),
  notBefore: v.number(),
  expires: v.number(),
  path: v.string(),
})

const listener = v.object({
  /** How log lines name it. */
  name: v.string(),
  backend: socketAddress,
  preamble: v.picklist(['ssl', 'proxy-v1', 'proxy-v2', 'none']),
  protocol: v.picklist(['pop3', 'smtp', 'other']),
  versions: v.picklist(['modern', 'old']),
  /** Networks that may connect; undefined: all networks. */
  allow: v.optional(v.array(v.string())),
  certificates: v.array(certificate),
})

/**
 * All that a worker needs to serve; also its replacement after a reload. The n-th listener is the
 * n-th inherited socket.
 */
const serve = v.object({
  type: v.literal('serve'),
  /** Account to become before a byte is read; undefined: nothing is separated. */
  ids: v.optional(v.object({ uid: v.number(), gid: v.number() })),
  logLevel: v.picklist(['debug', 'info', 'warn', 'error']),
  listeners: v.array(listener),
  preamblePassword: v.optional(v.string()),
  preambleReply: v.picklist(['ok', 'none']),
  ciphers: v.optional(v.string()),
  alpnStrict: v.boolean(),
  clientCertificate: v.picklist(['none', 'optional', 'required']),
  clientCa: v.optional(v.string()),
  ticketKeys: v.array(v.string()),
  /** Milliseconds. */
  handshakeLimit: v.number(),
  connectLimit: v.number(),
  idleLimit: v.number(),
  drainLimit: v.number(),
  maxConnections: v.number(),
  maxPerAddress: v.number(),
  /** Prefixes of the site's translators: whose connections count together. */
  nat64Prefixes: v.array(v.string()),
  /** Address at which this worker reports the end of the certificates; only one worker has it. */
  metricsListen: v.optional(socketAddress),
})

const fromParent = v.variant('type', [serve, v.object({ type: v.literal('drain') })])

const fromWorker = v.variant('type', [
  v.object({ type: v.literal('serving'), metrics: v.optional(v.pipe(v.string(), v.maxLength(100))) }),
  v.object({ type: v.literal('refused'), reason: v.pipe(v.string(), v.maxLength(2000)) }),
])

export type Serve = v.InferOutput<typeof serve>
export type ListenerPlan = v.InferOutput<typeof listener>
export type FromParent = v.InferOutput<typeof fromParent>
export type FromWorker = v.InferOutput<typeof fromWorker>

/** A message of the parent; undefined if it is none. */
export const parseFromParent = (message: unknown): FromParent | undefined => parse(fromParent, message)

/** A message of a worker, which may have been taken over: undefined if it is none. */
export const parseFromWorker = (message: unknown): FromWorker | undefined => parse(fromWorker, message)

function parse<Output>(schema: v.GenericSchema<unknown, Output>, message: unknown): Output | undefined {
  const result = v.safeParse(schema, message)
  return result.success ? result.output : undefined
}
