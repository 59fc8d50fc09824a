/** The plan of sslwrap, the files that it names, and the orders for its workers. */
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { formatFault, messageOf, UsageFault } from '../base/errors.ts'
import type { LogLevel } from '../base/log-events/row.ts'
import { formatSocketAddress, requireLoopback, type SocketAddress } from '../process/socket-address.ts'
import { tlsContradictions } from '../settings/contradictions.ts'
import { readSecretFile } from '../settings/secret.ts'
import type { Settings } from '../settings/settings.ts'
import { type Certificate, type CertificateFiles, CertificateUnusable, readCertificate } from '../tunnel/certificate.ts'
import { formatNetwork, type Network, type NetworkSet } from '../wire/ip-address.ts'
import type { ServeOrder, TlsListener } from '../wire/workers/tls-worker.ts'

/**
 * The tasks of sslwrap, from the settings file or the original's command line. The plan has the
 * paths of files, not their contents.
 */
export type Plan = {
  readonly listeners: readonly PlannedTlsListener[]
  readonly user: string
  readonly workers: number
  /** Files of the self-signed certificate, made if both are missing. Undefined: none is made. */
  readonly selfSigned: { readonly cert: string; readonly key: string; readonly names: readonly string[] } | undefined
  readonly passwordFile: string
  readonly preambleReply: 'ok' | 'none'
  readonly logLevel: LogLevel
  readonly ciphers: string | undefined
  readonly alpnStrict: boolean
  readonly clientCertificate: 'none' | 'optional' | 'required'
  readonly clientCaFiles: readonly string[]
  /** Milliseconds. */
  readonly handshakeLimit: number
  readonly connectLimit: number
  readonly idleLimit: number
  readonly drainLimit: number
  readonly maxConnections: number
  readonly maxPerAddress: number
  readonly nat64Prefixes: readonly Network[]
  /** Address where Prometheus reads the ends of the certificates. */
  readonly metricsListen: SocketAddress | undefined
}

export type PlannedTlsListener = {
  readonly listen: SocketAddress
  readonly backend: SocketAddress
  readonly preamble: TlsListener['preamble']
  readonly protocol: TlsListener['protocol']
  readonly versions: 'modern' | 'old'
  /** Networks that may connect; undefined: all networks. */
  readonly allow: NetworkSet | undefined
  /** The first one serves clients that name no server. */
  readonly certificates: readonly CertificateFiles[]
}

/** Makes the plan of the settings file. @throws UsageFault naming every contradiction. */
export function planOf({ top, grants, popup, sslwrap }: Settings): Plan {
  const faults = tlsContradictions({ sslwrap }).map(formatFault)
  const common = { cert: sslwrap.cert, key: sslwrap.key }
  const listeners = sslwrap.listener.length === 0 ? [DEFAULT_LISTENER] : sslwrap.listener
  const planned = listeners.map(
    (listener): PlannedTlsListener => ({
      listen: listener.listen,
      backend: listener.backend,
      preamble: listener.preamble,
      protocol: listener.protocol,
      versions: listener.tls,
      allow: listener.tls === 'old' ? sslwrap.old_tls_nets : undefined,
      certificates: [
        listener.cert === undefined ? common : { cert: listener.cert, key: listener.key },
        ...sslwrap.certificate,
      ],
    }),
  )
  attempt(faults, () => {
    if (sslwrap.metrics_listen !== undefined) requireLoopback(sslwrap.metrics_listen, 'sslwrap.metrics_listen')
  })
  if (faults.length > 0) throw new UsageFault(faults)
  return {
    listeners: planned,
    user: sslwrap.user,
    workers: sslwrap.workers,
    selfSigned: { ...common, names: [sslwrap.hostname === '' ? hostname() : sslwrap.hostname] },
    passwordFile: popup.ssl_hack_pass,
    preambleReply: popup.ssl_reply,
    logLevel: top.log_level,
    ciphers: sslwrap.ciphers === '' ? undefined : sslwrap.ciphers,
    alpnStrict: sslwrap.alpn_strict,
    clientCertificate: sslwrap.client_certificate,
    clientCaFiles: sslwrap.client_ca === '' ? [] : [sslwrap.client_ca],
    handshakeLimit: sslwrap.handshake_time * 1000,
    connectLimit: sslwrap.connect_time * 1000,
    idleLimit: sslwrap.idle_time * 1000,
    drainLimit: sslwrap.drain_time * 1000,
    maxConnections: sslwrap.max_connections,
    maxPerAddress: sslwrap.max_per_address,
    nat64Prefixes: grants.nat64_prefixes,
    metricsListen: sslwrap.metrics_listen,
  }
}

const DEFAULT_LISTENER = {
  listen: { kind: 'tcp', host: '::', port: 995 },
  backend: { kind: 'tcp', host: '127.0.0.1', port: 110 },
  preamble: 'ssl',
  protocol: 'pop3',
  cert: undefined,
  key: undefined,
  tls: 'modern',
} as const

/** The files of a plan. sslwrap reloads if one of them changes. */
export function filesOf(plan: Plan): readonly string[] {
  const certificates = plan.listeners.flatMap(({ certificates }) => certificates)
  const files = certificates.flatMap(({ cert, key }) => (key === undefined ? [cert] : [cert, key]))
  const password = needsPassword(plan) ? [plan.passwordFile] : []
  return [...new Set([...files, ...password, ...plan.clientCaFiles])]
}

/** The contents of a plan's files, which were checked. */
export type Materials = {
  readonly listeners: readonly TlsListener[]
  readonly preamblePassword: string | undefined
  readonly clientCa: string | undefined
}

/**
 * Reads and checks the files of a plan.
 * @throws UsageFault naming every file that cannot be used.
 */
export function readMaterials(plan: Plan): Materials {
  const faults: string[] = []
  const known = new Map<string, Certificate>()
  const certificate = (files: CertificateFiles): Certificate[] => {
    const key = `${files.cert}\0${files.key ?? ''}`
    const found = known.get(key) ?? attempt(faults, () => readCertificate(files))
    if (found === undefined) return []
    known.set(key, found)
    return [found]
  }
  const listeners = plan.listeners.map(listener => ({
    name: formatSocketAddress(listener.listen),
    backend: listener.backend,
    preamble: listener.preamble,
    protocol: listener.protocol,
    versions: listener.versions,
    allow: listener.allow?.networks.map(formatNetwork),
    certificates: listener.certificates.flatMap(certificate).map(copy),
  }))
  const password = needsPassword(plan) ? attempt(faults, () => readSecretFile(plan.passwordFile)) : undefined
  const authorities = plan.clientCaFiles.map(file => attempt(faults, () => readAuthorities(file)))
  if (faults.length > 0) throw new UsageFault([...new Set(faults)])
  return {
    listeners,
    preamblePassword: password?.reveal(),
    clientCa: authorities.length === 0 ? undefined : authorities.join('\n'),
  }
}

const copy = (certificate: Certificate) => ({ ...certificate, names: [...certificate.names] })
const needsPassword = ({ listeners }: Plan): boolean => listeners.some(({ preamble }) => preamble === 'ssl')

/**
 * Makes an order for a worker: its first message, and a new one after each change. Each worker
 * counts only its own connections, so the limits of the program are divided among the workers. The
 * worker of place 0 answers Prometheus.
 */
export function serveOrder(
  plan: Plan,
  materials: Materials,
  parts: {
    readonly ids: ServeOrder['ids']
    readonly ticketKeys: readonly string[]
    readonly workers: number
    /** Place of the worker, from 0. */
    readonly place: number
  },
): ServeOrder {
  const { workers, place } = parts
  return {
    type: 'serve',
    ids: parts.ids,
    logLevel: plan.logLevel,
    listeners: [...materials.listeners],
    preamblePassword: materials.preamblePassword,
    preambleReply: plan.preambleReply,
    ciphers: plan.ciphers,
    alpnStrict: plan.alpnStrict,
    clientCertificate: plan.clientCertificate,
    clientCa: materials.clientCa,
    ticketKeys: [...parts.ticketKeys],
    handshakeLimit: plan.handshakeLimit,
    connectLimit: plan.connectLimit,
    idleLimit: plan.idleLimit,
    drainLimit: plan.drainLimit,
    maxConnections: shareOf(plan.maxConnections, workers, place),
    maxPerAddress: shareOf(plan.maxPerAddress, workers, place),
    nat64Prefixes: plan.nat64Prefixes.map(formatNetwork),
    metricsListen: place === 0 ? plan.metricsListen : undefined,
  }
}

/**
 * The part of a limit for one worker. The sum of all parts is the limit. If the limit is less than
 * the number of workers, each part is 1. 0 means no limit and stays 0.
 */
function shareOf(limit: number, workers: number, place: number): number {
  const share = Math.floor(limit / workers) + (place < limit % workers ? 1 : 0)
  return limit === 0 ? 0 : Math.max(1, share)
}

function readAuthorities(path: string): string {
  try {
    const text = readFileSync(path, 'utf8')
    if (!text.includes('-----BEGIN CERTIFICATE-----'))
      throw new CertificateUnusable(path, 'holds no certificate in PEM form')
    return text
  } catch (error) {
    if (error instanceof CertificateUnusable) throw error
    throw new CertificateUnusable(path, `cannot be read: ${messageOf(error)}`, error)
  }
}

/** Calls `read`, and collects the faults that the administrator can correct. Throws all others. */
function attempt<T>(faults: string[], read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof UsageFault) faults.push(...error.faults)
    else if (error instanceof CertificateUnusable) faults.push(error.message)
    else throw error
    return undefined
  }
}
