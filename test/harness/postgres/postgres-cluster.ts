import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { idsOf } from '../../../src/process/privileges.ts'
import { eventually } from '../eventually.ts'
import { freePort } from '../free-port.ts'
import type { Need } from '../runner/describe-with.ts'
import { temporaryDirectory } from '../temporary-directory.ts'
import { copyTree } from './embedded-cluster.ts'

/** The PostgreSQL of Debian, of any version. */
const DEBIAN_ROOT = '/usr/lib/postgresql'

/** The directory of the host's newest PostgreSQL server programs; undefined if it has none. */
export function debianPostgres(): string | undefined {
  try {
    const versions = readdirSync(DEBIAN_ROOT).filter(name => /^\d+$/.test(name))
    const newest = versions.sort((a, b) => Number(a) - Number(b)).at(-1)
    return newest === undefined ? undefined : `${DEBIAN_ROOT}/${newest}/bin`
  } catch {
    return undefined // not installed
  }
}

export const DEBIAN_POSTGRES: Need = {
  name: 'a PostgreSQL server of the host',
  remedy: 'apt-get install postgresql',
  isThere: () => debianPostgres() !== undefined,
}

export type PostgresClusterOptions = {
  /** Directory of the programs; by default that of Debian. */
  readonly bin?: string
  /** Directory of the files; by default a temporary one. `remove` deletes it. */
  readonly directory?: ReturnType<typeof temporaryDirectory>
  /** Further settings. */
  readonly settings?: Readonly<Record<string, string>>
  /** Certificate and key (PEM). They switch on TLS and require it over TCP. */
  readonly tls?: { readonly certificate: string; readonly key: string }
  /** Makes this server a streaming replica of another one. */
  readonly replicaOf?: PostgresCluster
}

/** Debian's account of PostgreSQL, because initdb needs an account with a name. */
const clusterAccount = () => (process.geteuid?.() === 0 ? idsOf('postgres', 'the account of PostgreSQL') : undefined)

/** setpriv drops the privileges of the server, and stops the server when the test process ends. */
async function prefix(): Promise<readonly string[]> {
  const account = clusterAccount()
  const drop =
    account === undefined ? [] : ['--reuid', String(account.uid), '--regid', String(account.gid), '--clear-groups']
  return ['setpriv', '--pdeathsig', 'QUIT', ...drop, '--']
}

/** Data of a cluster that no server uses, by the directory of the programs. */
const TEMPLATES = new Map<string, string>()

/**
 * A PostgreSQL of one test on a free port of 127.0.0.1, with the superuser `postgres` and the
 * password `secret of tests`. It can be stopped, started, killed, frozen and promoted.
 */
export class PostgresCluster {
  static readonly password = 'secret of tests'
  readonly directory: ReturnType<typeof temporaryDirectory>
  readonly port: number
  readonly #bin: string
  readonly #prefix: readonly string[]
  readonly #settings: Readonly<Record<string, string>>
  #child: ChildProcess | undefined
  readonly #output: string[] = []
  readonly #stalled = new Set<number>()

  private constructor(
    directory: ReturnType<typeof temporaryDirectory>,
    bin: string,
    port: number,
    before: readonly string[],
    settings: Readonly<Record<string, string>>,
  ) {
    this.directory = directory
    this.#bin = bin
    this.port = port
    this.#prefix = before
    this.#settings = settings
  }

  /** Makes the cluster (or copies its primary) and starts it. */
  static async start(options: PostgresClusterOptions = {}): Promise<PostgresCluster> {
    const bin = options.bin ?? debianPostgres()
    if (bin === undefined) throw new Error(`${DEBIAN_POSTGRES.name} is missing: ${DEBIAN_POSTGRES.remedy}`)
    const settings = { ...options.settings, ...(options.tls === undefined ? {} : { ssl: 'on' }) }
    const cluster = new PostgresCluster(
      options.directory ?? temporaryDirectory(),
      bin,
      await freePort(),
      await prefix(),
      settings,
    )
    try {
      await cluster.#make(options)
      await cluster.start()
      return cluster
    } catch (error) {
      await cluster.remove()
      throw error
    }
  }

  get #data(): string {
    return `${this.directory.path}/data`
  }

  async #make({ tls, replicaOf }: PostgresClusterOptions): Promise<void> {
    const account = clusterAccount()
    const give = (path: string, mode: number): void => {
      if (account !== undefined) chownSync(path, account.uid, account.gid)
      chmodSync(path, mode)
    }
    if (replicaOf === undefined) {
      copyTree(this.#template(give), this.#data)
    } else {
      mkdirSync(this.#data)
      give(this.#data, 0o700)
      const primary = `host=127.0.0.1 port=${replicaOf.port} user=postgres password='${PostgresCluster.password}'`
      this.#run(
        'pg_basebackup',
        '-D',
        this.#data,
        '-R',
        '-X',
        'stream',
        '--checkpoint=fast',
        '--no-sync',
        '-d',
        primary,
      )
    }
    if (tls === undefined) return
    for (const [name, text] of Object.entries({ 'server.crt': tls.certificate, 'server.key': tls.key })) {
      writeFileSync(`${this.#data}/${name}`, text)
      give(`${this.#data}/${name}`, 0o600)
    }
  }

  /** The data of a new cluster, made once for each test process because initdb takes seconds. */
  #template(give: (path: string, mode: number) => void): string {
    const made = TEMPLATES.get(this.#bin)
    if (made !== undefined) return made
    const { path, remove } = temporaryDirectory()
    process.once('exit', remove)
    const [data, password] = [`${path}/data`, `${path}/password`]
    mkdirSync(data)
    give(data, 0o700)
    writeFileSync(password, PostgresCluster.password)
    give(password, 0o600)
    const login = ['-U', 'postgres', '-A', 'scram-sha-256', `--pwfile=${password}`]
    this.#run('initdb', '-D', data, '-E', 'UTF8', '--locale=C', '-N', ...login)
    appendFileSync(`${data}/pg_hba.conf`, 'host replication all 127.0.0.1/32 scram-sha-256\n')
    TEMPLATES.set(this.#bin, data)
    return data
  }

  #run(program: string, ...args: readonly string[]): void {
    const [file = '', ...words] = [...this.#prefix, `${this.#bin}/${program}`, ...args]
    execFileSync(file, words, {
      cwd: this.directory.path,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
    })
  }

  /** Starts the server again after stop or kill; resolves when it accepts connections. */
  async start(): Promise<void> {
    const settings = {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      fsync: 'off',
      shared_buffers: '16MB',
      ...this.#settings,
    }
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const [file = '', ...words] = [
      ...this.#prefix,
      `${this.#bin}/postgres`,
      '-D',
      this.#data,
      '-p',
      String(this.port),
      ...flags,
    ]
    const child = spawn(file, words, {
      cwd: this.directory.path,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { LC_ALL: 'C' },
    })
    child.stderr.on('data', chunk => this.#output.push(String(chunk)))
    this.#child = child
    await eventually(`PostgreSQL on port ${this.port} is ready`, () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(this.#output.join(''))
      const lines = readFileSync(`${this.#data}/postmaster.pid`, 'utf8').split('\n')
      return lines[0] === String(child.pid) && lines[7]?.trim() === 'ready'
    })
  }

  /** Replaces the lines of pg_hba.conf; the server applies them to new connections. */
  useHba(lines: string): void {
    // The file must keep the server's account as its owner.
    writeFileSync(`${this.#data}/pg_hba.conf`, lines)
    if (this.pid !== 0) process.kill(this.pid, 'SIGHUP')
  }

  /** `fast` is a fast shutdown, `kill` is SIGKILL for the server process. */
  async stop(how: 'fast' | 'kill' = 'fast'): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const closed = once(child, 'close')
    child.kill('SIGCONT')
    child.kill(how === 'fast' ? 'SIGINT' : 'SIGKILL')
    await closed
  }

  /** Pid of the server while it runs. */
  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /**
   * Stops the process of a standby that receives and answers, as on a stalled machine. The server
   * itself continues.
   */
  stallReplication(): void {
    for (const pid of this.#children()) {
      if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('walreceiver')) continue
      process.kill(pid, 'SIGSTOP')
      this.#stalled.add(pid)
    }
    if (this.#stalled.size === 0) throw new Error('the standby has no walreceiver')
  }

  resumeReplication(): void {
    for (const pid of this.#stalled) {
      try {
        process.kill(pid, 'SIGCONT')
      } catch {
        // The process has ended.
      }
    }
    this.#stalled.clear()
  }

  #children(): readonly number[] {
    return readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').trim().split(' ').map(Number)
  }

  /** Promotes a standby to a primary. */
  promote(): void {
    this.#run('pg_ctl', 'promote', '-D', this.#data, '-w')
  }

  /** Stops the server and removes its files. */
  async remove(): Promise<void> {
    await this.stop()
    this.directory.remove()
  }
}
