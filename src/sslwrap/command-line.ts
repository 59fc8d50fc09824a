/** The command lines of sslwrap: its own, and those of the original program. */
import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { resolve } from 'node:path'
import { messageOf, UsageFault } from '../base/errors.ts'
import { parseDaemonWords, unknownOption, wordsBefore } from '../process/command-line.ts'
import type { SocketAddress } from '../process/socket-address.ts'
import { readSecretFile } from '../settings/secret.ts'
import { SETTINGS_FILE } from '../settings/settings.ts'
import type { Plan, PlannedTlsListener } from './plan.ts'

/** The meaning of a command line. */
export type Invocation =
  /** Help or version, for standard output. */
  | { readonly kind: 'about'; readonly text: string }
  | { readonly kind: 'worker' }
  | { readonly kind: 'daemon'; readonly config: string }
  /** The original's options with -accept. */
  | { readonly kind: 'stand-alone'; readonly plan: Plan }
  /** The original's options without -accept: one client on descriptors 0 and 1. */
  | {
      readonly kind: 'inetd'
      readonly plan: Plan
      readonly program: readonly string[] | undefined
      readonly user: string | undefined
    }

const USAGE = `Usage: sslwrap [--config FILE]
       sslwrap -cert FILE [-key FILE] [-addr IPV4] -port PORT [-accept PORT] [options]
       sslwrap -cert FILE [-key FILE] [options] -exec PROGRAM [ARGUMENT...]
       sslwrap --help | --version

Without -accept it serves one client on its standard input, under tcpserver or inetd.

  -cert FILE, -key FILE     certificate chain and private key (PEM); default server.pem
  -addr IPV4, -port PORT    server behind; default address 127.0.0.1
  -accept PORT              listen on this port
  -exec PROGRAM ARGS...     run a program in place of a connection; takes the rest of the line
  -preamble KIND            ssl, proxy-v1, proxy-v2 or none; default ssl with -port
  -user NAME                account to become before a byte is read from the network
  -verify N, -Verify N      ask for, or demand, a client certificate (N is not used)
  -CAfile FILE, -CApath DIR authorities for client certificates
  -cipher LIST              OpenSSL cipher list for TLS 1.2
  -quiet, -debug            log less, log more

Environment: SSL_HACK_PASS (password file, default /etc/sslhack.pass), SSL_REPLY (ok, none). See sslwrap(8).
`

/** Options of the original that are accepted without an effect. Their features are always off. */
const WITHOUT_EFFECT = [
  '-no_ssl2',
  '-no_ssl3',
  '-no_tls1_0',
  '-no_tmp_rsa',
  '-bugs',
  '-hack',
  '-nbio',
  '-nbio_test',
  '-state',
]
/** Options of the original that are refused, and the reasons. */
const REFUSED: Readonly<Record<string, string>> = {
  '-nocert': 'anonymous encryption does not protect from an attacker who answers in place of this host: give -cert',
  '-ssl2': 'SSL 2.0 is insecure (RFC 6176): leave the option out',
  '-ssl3': 'SSL 3.0 is insecure (RFC 7568): leave the option out',
}
/** Options with a value in the next word. */
const VALUED = [
  '-addr',
  '-port',
  '-accept',
  '-cert',
  '-key',
  '-verify',
  '-Verify',
  '-CApath',
  '-CAfile',
  '-cipher',
  '-preamble',
  '-user',
]
const BARE = ['-quiet', '-debug', ...WITHOUT_EFFECT]
const PREAMBLES = ['ssl', 'proxy-v1', 'proxy-v2', 'none'] as const

type Environment = Readonly<Record<string, string | undefined>>

/**
 * Parses the command line. `services`: the file of services(5).
 * @throws UsageFault naming every fault at once.
 */
export function parseCommandLine(
  args: readonly string[],
  environment: Environment,
  services = '/etc/services',
): Invocation {
  if (args.length === 1 && args[0] === '--worker') return { kind: 'worker' }
  const words = parseDaemonWords('sslwrap', USAGE, SETTINGS_FILE, args, wordsBefore('--', wordsBefore('-exec', args)))
  if (words.kind === 'about') return words
  return words.kind === 'serve' ? { kind: 'daemon', config: words.config } : parseOriginal(args, environment, services)
}

function parseOriginal(args: readonly string[], environment: Environment, services: string): Invocation {
  const faults: string[] = []
  const { values, flags, program } = readOptions(args, faults)
  const one = <T>(option: string, read: (value: string) => T | undefined, remedy: string): T | undefined => {
    const value = values.get(option)
    if (value === undefined) return undefined
    const result = read(value)
    if (result === undefined) faults.push(`${option} ${value}: ${remedy}`)
    return result
  }
  const portNumber = (text: string): number | undefined => parsePort(text, services)
  const port = one('-port', portNumber, `must be a port number or a name in ${services}`)
  const accept = one('-accept', portNumber, `must be a port number or a name in ${services}`)
  const host = one('-addr', text => (isIPv4(text) ? text : undefined), 'must be an IPv4 address') ?? '127.0.0.1'
  const preamble = one(
    '-preamble',
    text => PREAMBLES.find(kind => kind === text),
    `must be one of ${PREAMBLES.join(', ')}`,
  )
  const reply = environment['SSL_REPLY'] ?? 'ok'
  if (reply !== 'ok' && reply !== 'none') faults.push('environment SSL_REPLY: must be ok or none')
  if ((values.has('-port') ? 1 : 0) + (program === undefined ? 0 : 1) !== 1) faults.push('give either -port or -exec')
  if (program !== undefined && program.length === 0) faults.push('-exec: name the program')
  if (program !== undefined && accept !== undefined) {
    faults.push('-exec does not go with -accept: run it as tcpserver 0 995 sslwrap -cert FILE -exec PROGRAM')
  }
  const clientCertificate = values.has('-Verify') ? 'required' : values.has('-verify') ? 'optional' : 'none'
  const clientCaFiles = authorities(values, faults)
  if (clientCertificate !== 'none' && clientCaFiles.length === 0)
    faults.push('-verify and -Verify need -CAfile or -CApath')
  const kind = preamble ?? (program === undefined ? 'ssl' : 'none')
  const passwordFile = environment['SSL_HACK_PASS'] ?? '/etc/sslhack.pass'
  if (kind === 'ssl' && faults.length === 0) readSecretFile(passwordFile)
  if (faults.length > 0) throw new UsageFault(faults)

  const cert = resolve(values.get('-cert') ?? 'server.pem')
  const key = values.get('-key')
  const backend: SocketAddress = { kind: 'tcp', host, port: port ?? 0 }
  const listener: PlannedTlsListener = {
    listen: { kind: 'tcp', host: '::', port: accept ?? 0 },
    backend,
    preamble: kind,
    protocol: kind === 'ssl' || port === 110 || program !== undefined ? 'pop3' : 'other',
    versions: 'modern',
    allow: undefined,
    certificates: [{ cert, key: key === undefined ? undefined : resolve(key) }],
  }
  const user = values.get('-user')
  const plan: Plan = {
    listeners: [listener],
    user: user ?? 'auth-relay-tls',
    workers: 0,
    selfSigned: undefined,
    passwordFile,
    preambleReply: reply === 'none' ? 'none' : 'ok',
    logLevel: flags.has('-debug') ? 'debug' : flags.has('-quiet') ? 'warn' : 'info',
    ciphers: values.get('-cipher'),
    alpnStrict: false,
    clientCertificate,
    clientCaFiles,
    handshakeLimit: 30_000,
    connectLimit: 10_000,
    idleLimit: 1_260_000,
    drainLimit: 10_000,
    maxConnections: 10_000,
    maxPerAddress: 200,
    nat64Prefixes: [],
    metricsListen: undefined,
  }
  return accept === undefined ? { kind: 'inetd', plan, program, user } : { kind: 'stand-alone', plan }
}

const unknownWord = (word: string): string =>
  word.startsWith('-') ? unknownOption('sslwrap', word) : `unknown argument ${word}: see sslwrap --help`

function readOptions(args: readonly string[], faults: string[]) {
  const values = new Map<string, string>()
  const flags = new Set<string>()
  for (let at = 0; at < args.length; at++) {
    const option = args[at] ?? ''
    const refused = Object.hasOwn(REFUSED, option) ? REFUSED[option] : undefined
    if (option === '-exec') return { values, flags, program: args.slice(at + 1) }
    if (refused !== undefined) faults.push(`${option}: ${refused}`)
    else if (BARE.includes(option)) flags.add(option)
    else if (!VALUED.includes(option)) faults.push(unknownWord(option))
    else {
      const value = args[++at]
      if (value === undefined) faults.push(`${option}: its value is missing`)
      else values.set(option, value)
    }
  }
  return { values, flags, program: undefined }
}

/**
 * The files of -CAfile and -CApath, each once: openssl-rehash(1) puts a second name for each file
 * into the directory, which is a symbolic link. Subdirectories are left out, as OpenSSL does.
 */
function authorities(values: ReadonlyMap<string, string>, faults: string[]): readonly string[] {
  const file = values.get('-CAfile')
  const directory = values.get('-CApath')
  const files = new Set(file === undefined ? [] : [resolve(file)])
  try {
    for (const name of directory === undefined ? [] : readdirSync(directory)) {
      const path = realpathSync(resolve(directory ?? '', name))
      if (!statSync(path).isDirectory()) files.add(path)
    }
  } catch (error) {
    faults.push(`-CApath ${directory}: ${messageOf(error)}`)
  }
  return [...files]
}

/** Parses a port: its number, or its name in services(5). Undefined if there is no such port. */
function parsePort(text: string, services: string): number | undefined {
  if (/^\d{1,5}$/.test(text)) return Number(text) >= 1 && Number(text) <= 65_535 ? Number(text) : undefined
  for (const line of readServices(services)) {
    const [name, port = '', ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/)
    const number = /^(\d+)\/tcp$/.exec(port)?.[1]
    if (number !== undefined && (name === text || aliases.includes(text))) return Number(number)
  }
  return undefined
}

/** The lines of the file; none if it is missing or unreadable, so that only numbers are ports. */
function readServices(path: string): readonly string[] {
  try {
    return readFileSync(path, 'utf8').split('\n')
  } catch {
    return []
  }
}
