/**
 * Messages between sslwrap and its workers: the orders, and the answers. A worker speaks TLS with
 * every client, so sslwrap checks its messages like hostile input.
 */
import * as v from 'valibot'
import { parseNetwork } from '../ip-address.ts'
import { readMessage, requireMessage } from './control-channel.ts'

const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535))
const socketAddress = v.variant('kind', [
  v.strictObject({ kind: v.literal('tcp'), host: v.string(), port }),
  v.strictObject({ kind: v.literal('unix'), path: v.string() }),
  v.strictObject({ kind: v.literal('descriptor'), fd: v.pipe(v.number(), v.integer(), v.minValue(0)) }),
])

const network = v.pipe(
  v.string(),
  v.check(text => parseNetwork(text) !== undefined),
)
const id = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
/** 0: no limit. */
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const milliseconds = v.pipe(v.number(), v.finite(), v.minValue(0))
/** Milliseconds since 1970. */
const moment = v.pipe(v.number(), v.finite())

const certificate = v.strictObject({
  cert: v.string(),
  key: v.string(),
  keyType: v.picklist(['rsa', 'ec', 'ed25519']),
  names: v.array(v.string()),
  notBefore: moment,
  expires: moment,
  path: v.string(),
})

const listener = v.strictObject({
  /** The name of the listener in log lines. */
  name: v.string(),
  backend: socketAddress,
  preamble: v.picklist(['ssl', 'proxy-v1', 'proxy-v2', 'none']),
  protocol: v.picklist(['pop3', 'smtp', 'other']),
  versions: v.picklist(['modern', 'old']),
  /** Networks that may connect; undefined: all networks. */
  allow: v.optional(v.array(network)),
  certificates: v.array(certificate),
})

const serve = v.strictObject({
  type: v.literal('serve'),
  /** The account for the worker, which it takes first. Undefined: it keeps its account. */
  ids: v.optional(v.strictObject({ uid: id, gid: id })),
  logLevel: v.picklist(['debug', 'info', 'warn', 'error']),
  listeners: v.array(listener),
  preamblePassword: v.optional(v.string()),
  preambleReply: v.picklist(['ok', 'none']),
  ciphers: v.optional(v.string()),
  alpnStrict: v.boolean(),
  clientCertificate: v.picklist(['none', 'optional', 'required']),
  clientCa: v.optional(v.string()),
  ticketKeys: v.array(v.string()),
  handshakeLimit: milliseconds,
  connectLimit: milliseconds,
  idleLimit: milliseconds,
  drainLimit: milliseconds,
  /** The share of this worker in the limits of the program. */
  maxConnections: count,
  maxPerAddress: count,
  /** Prefixes of the site's translators: connections of an embedded address count together. */
  nat64Prefixes: v.array(network),
  /** The address for the metrics of the certificates. Only one worker has it. */
  metricsListen: v.optional(socketAddress),
})

/** All data that a worker needs. A later order replaces them. Listener n has inherited socket n. */
export type ServeOrder = v.InferOutput<typeof serve>
export type TlsListener = v.InferOutput<typeof listener>

const order = v.variant('type', [
  serve,
  /** Stop accepting, and exit after the last session. */
  v.strictObject({ type: v.literal('drain') }),
])

/** To a worker. It answers each `serve`. */
export type TlsWorkerOrder = v.InferOutput<typeof order>

/** Reads a message of sslwrap. @throws TypeError, see requireMessage. */
export const parseTlsWorkerOrder = (message: unknown): TlsWorkerOrder => requireMessage(order, message)

/** Most characters of a reason. */
const MAX_REASON = 2000

const answer = v.variant('type', [
  /** The order is in force. `metrics`: the address at which the worker answers Prometheus. */
  v.strictObject({ type: v.literal('serving'), metrics: v.optional(v.pipe(v.string(), v.maxLength(100))) }),
  /** The order cannot be used. An earlier one stays in force. */
  v.strictObject({ type: v.literal('refused'), reason: v.pipe(v.string(), v.maxLength(MAX_REASON)) }),
])

/** From a worker. */
export type TlsWorkerAnswer = v.InferOutput<typeof answer>

/** The answer to an order that cannot be used. A long reason is cut. */
export const refusalOf = (reason: string): TlsWorkerAnswer => ({ type: 'refused', reason: reason.slice(0, MAX_REASON) })

/** Reads a message of a worker; undefined if it has another form. */
export const parseTlsWorkerAnswer = (message: unknown): TlsWorkerAnswer | undefined => readMessage(answer, message)
