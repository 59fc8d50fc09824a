/**
 * The embedded PostgreSQL: its files, its first start, its supervision and its end.
 *
 * A start has these steps, in order. Each can be repeated after a crash of this process:
 *
 * 1. The lock on `owner.pid` makes this process the only owner of the directory. The kernel
 *    releases the lock with the process.
 * 2. The program is unpacked, the superuser gets a random password, and initdb makes the cluster
 *    in `data.new`. The rename to `data` is the last act, so a `data` directory is always
 *    complete.
 * 3. A server of an earlier owner may still run. It is stopped, because two servers would damage
 *    the cluster. A pid file that names another program is removed.
 * 4. The supervisor starts the server under its account. PostgreSQL refuses root, so setpriv takes
 *    the account and lets the kernel stop the server when this process ends.
 *
 * The supervisor starts the server again after each crash, with a delay that doubles. It kills a
 * server that does not answer pings, or that is not ready in time. `stop` requests a fast
 * shutdown, then an immediate one, then kills. The socket directory and the lock end only after
 * the server.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { errorCodeOf, messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { isStoppedProcess, Pings, SupervisedChild } from '../base/supervised-child.ts'
import type { ConnectionOptions } from './connection-options.ts'
import { EmbeddedServerFault } from './errors.ts'
import {
  canReach,
  giveTo,
  giveTreeTo,
  identityOf,
  initialAccount,
  type ServerAccount,
  takeOwnership,
} from './server-account.ts'
import { installServerProgram } from './server-program.ts'

export type EmbeddedServerOptions = {
  /** Directory of all files of the server (`postgresql/` below it); it is made if missing. */
  readonly stateDir: string
  readonly log: Omit<Log, 'with'>
  /**
   * Account of the server, which needs root. Undefined: the account of this process, which must not
   * be root.
   */
  readonly account: ServerAccount | undefined
  /**
   * Mode of the directory that holds the Unix socket; its group is that of the account. Left out:
   * 0750.
   */
  readonly socketDirectoryMode?: number
  /** A TCP port on 127.0.0.1 besides the Unix socket. Left out: none. */
  readonly tcpPort?: number
  /** Settings of postgresql.conf that override the defaults of auth-relay. */
  readonly settings?: Readonly<Record<string, string>>
}

export interface EmbeddedServer {
  /** The superuser `postgres` on the database `postgres`, by Unix socket. */
  readonly connection: ConnectionOptions
  /** Process id of the running server. It changes when the server starts again after a crash. */
  readonly pid: number
  /** Fast shutdown; resolves when no process of the server is left. */
  stop(): Promise<void>
}

const START_TIMEOUT_MS = 60_000
const FAST_STOP_MS = 15_000
const SUPERUSER = 'postgres'
/** Part of the socket's file name only. */
const SOCKET_PORT = 5432
/** Length and code of the message, PostgreSQL's protocol, SSLRequest. */
const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47)
const PING_LIMIT_MS = 20_000
/** sun_path of unix(7) holds 108 octets with its NUL. */
const MAX_SOCKET_PATH = 107

/**
 * Small machine, one application, short transactions; durable, because `committed` must mean
 * committed.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '',
  unix_socket_permissions: '0777', // the directory decides about accounts, the password about roles
  authentication_timeout: '5s', // a client takes a slot before it authenticates
  password_encryption: 'scram-sha-256',
  shared_buffers: '32MB',
  max_connections: '60',
  // For the role of authd, so that programs with other roles cannot take all connections.
  reserved_connections: '6',
  wal_level: 'minimal',
  max_wal_senders: '0',
  max_wal_size: '256MB',
  max_logical_replication_workers: '0',
  io_method: 'sync',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
}

type Place = { readonly base: string; readonly account: ServerAccount | undefined }

/**
 * Starts the PostgreSQL of the npm package as a child, and keeps it running until `stop`. The first
 * start makes the database cluster and takes some seconds; later ones take well under a second. The
 * server also stops if this process ends in any way. @throws EmbeddedServerFault with the remedy.
 */
export async function startEmbeddedServer(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
  const place = await findPlace(options)
  const release = takeOwnership(place.base)
  try {
    const program = await installServerProgram(place.base)
    const password = await superuserPassword(place.base)
    const data = join(place.base, 'data')
    await initialise(program, data, password, place, options)
    await stopOrphan(data, options.log)
    const socketDir = await makeSocketDir(place, options)
    const server = new Supervisor(program, data, socketDir, place, options)
    try {
      await server.start()
    } catch (error) {
      await server.stop()
      throw error
    }
    return {
      connection: {
        hosts: [{ host: socketDir, port: SOCKET_PORT }],
        database: 'postgres',
        user: SUPERUSER,
        password: { reveal: () => password },
      },
      get pid() {
        return server.pid
      },
      async stop() {
        await server.stop()
        await rm(socketDir, { recursive: true, force: true })
        release()
      },
    }
  } catch (error) {
    release()
    throw error
  }
}

/**
 * `postgresql/` below the state directory. If the server's account cannot pass through the
 * directories above it (a checkout below root's home), the data are in a separate directory below
 * /var/lib. A symbolic link leads there.
 */
async function findPlace({ stateDir, account, log }: EmbeddedServerOptions): Promise<Place> {
  if (account === undefined ? process.geteuid?.() === 0 : account.uid === 0) {
    throw new EmbeddedServerFault('PostgreSQL refuses to run as root: name another account in database.embedded_user')
  }
  const directory = resolve(stateDir)
  await mkdir(directory, { recursive: true })
  const preferred = join(directory, 'postgresql')
  if (account === undefined || (await canReach(directory, account))) return { base: await makeBase(preferred), account }
  const hash = createHash('sha256').update(directory).digest('hex').slice(0, 12)
  const base = await makeBase(`/var/lib/auth-relay/postgresql-${hash}`)
  // A link for the administrator. It may exist already.
  await symlink(base, preferred).catch(() => undefined)
  log.info('database_relocated', {
    wanted: preferred,
    used: base,
    reason: 'not reachable for the account of the server',
  })
  return { base, account }
}

async function makeBase(base: string): Promise<string> {
  await mkdir(base, { recursive: true })
  await chmod(base, 0o755)
  return base
}

/** A random password, made once; only the account of this process can read it. */
async function superuserPassword(base: string): Promise<string> {
  const file = join(base, 'superuser.secret')
  const kept = await readFile(file, 'utf8').catch(() => '')
  if (kept.trim() !== '') return kept.trim()
  const made = randomBytes(24).toString('base64url')
  await writeFile(file, `${made}\n`, { mode: 0o600 })
  return made
}

/**
 * Makes the cluster unless it is there. An interrupted first start leaves `data.new`, which is
 * begun again.
 */
async function initialise(
  program: string,
  data: string,
  password: string,
  place: Place,
  { log, settings }: EmbeddedServerOptions,
): Promise<void> {
  const version = await readFile(join(data, 'PG_VERSION'), 'utf8').catch(() => undefined)
  const ours = /program-(\d+)\./.exec(program)?.[1]
  if (version !== undefined) {
    if (version.trim() === ours) {
      if (await giveTreeTo(data, place.account))
        log.info('database_owner_changed', { directory: data, ...place.account })
      return
    }
    throw new EmbeddedServerFault(
      `${data} was written by PostgreSQL ${version.trim()}, this auth-relay brings ${ours}: dump it with the older release, or rename it to begin with an empty one`,
    )
  }
  const fresh = `${data}.new`
  const passwordFile = `${data}.password`
  await rm(fresh, { recursive: true, force: true })
  await mkdir(fresh, { mode: 0o700 })
  const initial = place.account === undefined ? undefined : await initialAccount(place.account)
  await giveTo(fresh, initial)
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 })
  await giveTo(passwordFile, initial)
  try {
    const initdb = join(program, 'bin/initdb')
    const flags = [
      '-D',
      fresh,
      '-U',
      SUPERUSER,
      '-E',
      'UTF8',
      '--locale=C',
      '--auth=scram-sha-256',
      '--no-instructions',
      ...(settings?.['fsync'] === 'off' ? ['--no-sync'] : []),
    ]
    const { command, args, environment } = asAccount(initdb, [...flags, `--pwfile=${passwordFile}`], initial)
    await promisify(execFile)(command, args, { env: environment, cwd: place.base, maxBuffer: 1 << 20 })
    await giveTreeTo(fresh, place.account)
    await rename(fresh, data)
    log.info('database_created', { directory: data })
  } catch (error) {
    throw new EmbeddedServerFault(`cannot make the database in ${data}: ${textOf(error)}`, { cause: error })
  } finally {
    await rm(passwordFile, { force: true })
  }
}

/**
 * The owner of this cluster has ended. Its server may still run, because it is stopping. Or its pid
 * file may name an unrelated process, which would keep PostgreSQL from starting.
 */
async function stopOrphan(data: string, log: Omit<Log, 'with'>): Promise<void> {
  const file = join(data, 'postmaster.pid')
  const text = await readFile(file, 'utf8').catch(() => undefined)
  const pid = Number(text?.split('\n', 1)[0])
  if (text === undefined || !Number.isInteger(pid) || pid <= 0) return
  if (!(await isServerOf(pid, data))) {
    if ((await identityOf(pid)) !== undefined) await rm(file, { force: true })
    return // a dead process: PostgreSQL clears its own file
  }
  log.warn('database_orphaned', { pid })
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    signalProcess(pid, signal)
    const end = performance.now() + FAST_STOP_MS
    while (performance.now() < end) {
      if ((await identityOf(pid)) === undefined) return
      await pause(20)
    }
  }
}

async function isServerOf(pid: number, data: string): Promise<boolean> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  const words = commandLine.split('\0')
  return words[0]?.endsWith('/postgres') === true && words.includes(data)
}

/**
 * Beside the data when the path fits into a socket address, else in the directory for temporary
 * files.
 */
async function makeSocketDir(
  { base, account }: Place,
  { socketDirectoryMode = 0o750 }: EmbeddedServerOptions,
): Promise<string> {
  const beside = join(base, 'run')
  const fits = Buffer.byteLength(join(beside, `.s.PGSQL.${SOCKET_PORT}`)) <= MAX_SOCKET_PATH
  const directory = fits ? beside : await mkdtemp(join(tmpdir(), 'auth-relay-db-'))
  await mkdir(directory, { recursive: true })
  await giveTo(directory, account)
  await chmod(directory, socketDirectoryMode)
  return directory
}

/** One run of the server. `ended`: its last line of output, if there is one. */
type ServerRun = {
  readonly child: ChildProcess
  /** The server accepts connections; rejects with an EmbeddedServerFault. */
  readonly ready: Promise<void>
  readonly ended: Promise<string | undefined>
  readonly isReady: () => boolean
}

class Supervisor {
  readonly #program: string
  readonly #data: string
  readonly #socketDir: string
  readonly #place: Place
  readonly #options: EmbeddedServerOptions
  readonly #supervised: SupervisedChild<ServerRun>
  /** The first start has succeeded. */
  #isStarted = false
  /** Last lines of the server, for the message when it does not start. */
  #lastLines: string[] = []

  constructor(program: string, data: string, socketDir: string, place: Place, options: EmbeddedServerOptions) {
    this.#program = program
    this.#data = data
    this.#socketDir = socketDir
    this.#place = place
    this.#options = options
    this.#supervised = new SupervisedChild<ServerRun>({
      launch: () => this.#launch(),
      ended: (last, { child, isReady }) => {
        if (!this.#isStarted || this.#supervised.isStopped) return
        if (isReady()) options.log.error('database_crashed', { pid: child.pid, last })
        this.#supervised.restart()
      },
    })
  }

  get pid(): number {
    return this.#supervised.run?.child.pid ?? 0
  }

  /** Starts the server and waits until it accepts connections. */
  async start(): Promise<void> {
    await this.#supervised.start()?.ready
    this.#isStarted = true
  }

  async stop(): Promise<void> {
    const kill =
      (signal: NodeJS.Signals, late?: NodeJS.Signals) =>
      ({ child }: ServerRun): void => {
        if (late !== undefined) this.#options.log.warn('database_stop_delayed', { pid: child.pid, signal: late })
        child.kill(signal)
      }
    await this.#supervised.stop(
      { after: 0, act: kill('SIGINT') },
      { after: FAST_STOP_MS, act: kill('SIGQUIT', 'SIGINT') },
      { after: FAST_STOP_MS, act: kill('SIGKILL', 'SIGQUIT') },
    )
  }

  #launch(): ServerRun {
    const child = this.#spawn()
    const { promise: ended, resolve: end } = Promise.withResolvers<string | undefined>()
    const { promise: failed, reject: fail } = Promise.withResolvers<never>()
    const pings = new Pings(
      () => this.#ping(() => pings.alive()),
      () => {
        this.#options.log.error('database_hung', { pid: child.pid, reason: 'no answer to pings' })
        child.kill('SIGKILL')
      },
      () => isStoppedProcess(child.pid),
    )
    child.once('error', error => fail(this.#fault(textOf(error), error)))
    child.once('close', (status, signal) => {
      pings.end()
      fail(this.#fault(`it ended with ${signal ?? `status ${status}`}`))
      end(this.#lastLines.at(-1))
    })
    let isReady = false
    const ready = Promise.race([failed, this.#ready(child)]).then(() => {
      isReady = true
      pings.alive()
      if (this.#isStarted) this.#options.log.info('database_restarted', { pid: child.pid })
    })
    ready.catch((error: unknown) => {
      if (!this.#isStarted || this.#supervised.isStopped) return
      this.#options.log.error('database_restart_failed', { reason: textOf(error) })
      child.kill('SIGKILL')
    })
    failed.catch(() => undefined) // after the start the end of the run reports the same
    return { child, ready, ended, isReady: () => isReady }
  }

  #spawn(): ChildProcess {
    const { tcpPort, settings = {} } = this.#options
    const tcp = tcpPort === undefined ? {} : { listen_addresses: '127.0.0.1' }
    const all = { ...SETTINGS, ...tcp, ...settings, unix_socket_directories: this.#socketDir }
    const args = ['-D', this.#data, '-p', String(tcpPort ?? SOCKET_PORT)]
    for (const [name, value] of Object.entries(all)) args.push('-c', `${name}=${value}`)
    const {
      command,
      args: words,
      environment,
    } = asAccount(join(this.#program, 'bin/postgres'), args, this.#place.account)
    // Detached, because Ctrl-C on the terminal must reach only this process. It stops the server
    // after the programs that write to it.
    const child = spawn(command, words, {
      cwd: this.#place.base,
      env: environment,
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    // If no descriptor is free, the runtime makes no stream and emits `error` later.
    const errors = child.stderr ?? undefined
    if (errors !== undefined) createInterface({ input: errors }).on('line', line => this.#onLine(line))
    return child
  }

  #onLine(line: string): void {
    const text = line.slice(0, 500)
    this.#lastLines = [...this.#lastLines.slice(-9), text]
    const { log } = this.#options
    const fields = { line: text.replace(/^\S+ \S+ UTC /, '') }
    if (/ (FATAL|PANIC|WARNING): /.test(text)) log.warn('postgres_reported', fields)
    else log.debug('postgres_reported', fields)
  }

  /** Requests TLS (SSLRequest), which the server answers before it requires a name or a slot. */
  #ping(answered: () => void): void {
    const probe = connect(join(this.#socketDir, `.s.PGSQL.${this.#options.tcpPort ?? SOCKET_PORT}`))
    const end = (): void => void probe.destroy()
    probe.setTimeout(PING_LIMIT_MS, end).on('error', end).once('data', answered).once('data', end)
    probe.write(SSL_REQUEST)
  }

  /** As in pg_ctl: line 8 of postmaster.pid is `ready`, and line 1 is the pid of this server. */
  async #ready(child: ChildProcess): Promise<void> {
    const end = performance.now() + START_TIMEOUT_MS
    while (performance.now() < end) {
      // The other promise of the race reports the reason.
      if (hasEnded(child)) return await new Promise(() => undefined)
      const lines = (await readFile(join(this.#data, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
      if (lines[0] === String(child.pid) && lines[7]?.trim() === 'ready') return
      await pause(5)
    }
    throw this.#fault(`it is not ready after ${START_TIMEOUT_MS / 1000} s`)
  }

  #fault(what: string, cause?: unknown): EmbeddedServerFault {
    const output = this.#lastLines.length === 0 ? '' : `; its output: ${this.#lastLines.join(' | ')}`
    return new EmbeddedServerFault(`PostgreSQL in ${this.#data} does not start: ${what}${output}`, { cause })
  }
}

/**
 * The command line that runs a program under the server's account. The kernel sends the program
 * SIGINT (PostgreSQL's fast shutdown) when this process ends. setpriv of util-linux, which is part
 * of every Debian, does both.
 */
function asAccount(program: string, args: readonly string[], account: ServerAccount | undefined) {
  const drop =
    account === undefined ? [] : ['--reuid', String(account.uid), '--regid', String(account.gid), '--clear-groups']
  return {
    command: 'setpriv',
    args: ['--pdeathsig', 'INT', '--nnp', ...drop, '--', program, ...args],
    environment: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', TZ: 'UTC' },
  }
}

const hasEnded = (child: ChildProcess): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

function signalProcess(pid: number, signal: 'SIGINT' | 'SIGQUIT' | 'SIGKILL'): void {
  try {
    process.kill(pid, signal)
  } catch {
    // ESRCH: the process has ended, as intended
  }
}

function textOf(error: unknown): string {
  const isMissing = errorCodeOf(error) === 'ENOENT' && error instanceof Error && 'path' in error
  return isMissing && error.path === 'setpriv' ? 'the program setpriv is missing: install util-linux' : messageOf(error)
}
