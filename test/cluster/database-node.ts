import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import { idsOf } from '../../src/process/privileges.ts'
import { eventually } from '../harness/eventually.ts'
import type { NetworkNamespace, TestNetwork } from '../harness/hosts/network-namespace.ts'
import { FAKETIME } from '../harness/hosts/skewed-clock.ts'
import { debianPostgres } from '../harness/postgres/postgres-cluster.ts'
import { descendantsOf, type ProcessStatus } from '../harness/processes/process-status.ts'
import { Program } from '../harness/processes/program.ts'
import type { ClusterOptions } from './database-cluster.ts'
import { Watchdog } from './watchdog.ts'

export const PASSWORDS = { postgres: 'super of tests', replicator: 'replica of tests', rewinder: 'rewind of tests' }
export const SCOPE = 'tests'

/** Patroni's times in these tests: the shortest that it allows. */
export const TTL = 20

/**
 * Number of seconds by which a clock may be ahead before its rows are invalid, with a margin for
 * the file that sets the clock.
 */
const CLOCK_RULE = 55
/** Milliseconds after which every process of PostgreSQL uses a clock that was set. */
const CLOCK_SETTLES = 3000
/** Milliseconds between two checks for programs that have failed. */
const RESTART_AFTER = 1500
/** The disk of a node's database, in MB. Each promotion leaves segments of the WAL. */
const DISK = 1500

export type Member = v.InferOutput<typeof CLUSTER>['members'][number]
/** Fields of the answer to GET /cluster. A starting member has no timeline. */
const CLUSTER = v.object({
  members: v.array(
    v.object({ name: v.string(), role: v.string(), state: v.string(), timeline: v.optional(v.number(), 0) }),
  ),
})

type Command = Pick<ProcessStatus, 'commandLine'>
const isPostgres = ({ commandLine: [program = ''] }: Command): boolean => /postgres/.test(program)
const isPatroni = ({ commandLine: [program = '', script = ''] }: Command): boolean =>
  /python3$/.test(program) && script === '/usr/bin/patroni'
const isEtcd = ({ commandLine: [program = ''] }: Command): boolean => /(^|\/)etcd$/.test(program)

/**
 * A machine with etcd, Patroni and PostgreSQL. It is a network namespace and a PID namespace whose
 * first process reaps children, with a small separate disk. A file sets its clock (libfaketime);
 * monotonic time is unchanged, as with a real clock step.
 */
export class DatabaseNode {
  readonly name: string
  readonly host: NetworkNamespace
  readonly ip: string
  readonly directory: string
  readonly #peers: readonly { readonly name: string; readonly ip: string }[]
  readonly #options: ClusterOptions
  readonly #watchdog: Watchdog | undefined
  readonly #first: Program
  readonly #account = idsOf('postgres', 'the account of PostgreSQL')
  /** The watchdog has reset the machine. */
  wasReset = false
  #clock = 0
  #clockStepped = Number.NEGATIVE_INFINITY
  #stopped: number[] = []
  /** True while a fault keeps the programs of this node stopped. */
  #isDown = false
  readonly #supervisor: NodeJS.Timeout
  #routes: string[] = []

  constructor(
    network: TestNetwork,
    peers: readonly { readonly name: string; readonly ip: string }[],
    own: { readonly name: string; readonly ip: string },
    options: ClusterOptions & { readonly directory: string },
  ) {
    this.name = own.name
    this.ip = own.ip
    this.#peers = peers
    this.#options = options
    this.directory = `${options.directory}/${own.name}`
    this.host = network.client(own.ip)
    mkdirSync(this.directory)
    mkdirSync(`${this.directory}/disk`)
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK}m,mode=700`, 'tmpfs', `${this.directory}/disk`])
    this.setClock(0)
    this.#give(`${this.directory}/disk`, 0o700)
    this.#makePrograms()
    mkdirSync(`${this.directory}/sock`)
    this.#give(`${this.directory}/sock`, 0o700)
    this.#watchdog = options.watchdog ? new Watchdog(`${this.directory}/watchdog`, () => this.#reset()) : undefined
    if (options.watchdog) this.#give(`${this.directory}/watchdog`, 0o600)
    writeFileSync(`${this.directory}/patroni.json`, JSON.stringify(this.#patroniSettings()))
    this.#give(`${this.directory}/patroni.json`, 0o600)
    this.#give(this.directory, 0o700)
    const drop = ['--reuid', `${this.#account.uid}`, '--regid', `${this.#account.gid}`, '--clear-groups', '--']
    const python = ['/usr/bin/python3', '-u', new URL('first-process.py', import.meta.url).pathname]
    this.#first = new Program(own.name, ['setpriv', ...drop, ...python], {
      prefix: [...this.host.prefix, 'unshare', '--pid', '--fork', '--kill-child', '--mount-proc'],
      cwd: this.directory,
    })
    this.#supervisor = setInterval(() => this.#revive(), RESTART_AFTER)
  }

  /**
   * PostgreSQL's programs, which use the node's clock. Patroni does not, because Python's
   * time.sleep fails under libfaketime.
   */
  #makePrograms(): void {
    const real = debianPostgres()
    if (real === undefined) throw new Error('no PostgreSQL')
    mkdirSync(`${this.directory}/bin`)
    for (const name of readdirSync(real)) {
      if (name !== 'postgres') symlinkSync(`${real}/${name}`, `${this.directory}/bin/${name}`)
    }
    const variables = `LD_PRELOAD=${FAKETIME} FAKETIME_TIMESTAMP_FILE=${this.directory}/clock FAKETIME_CACHE_DURATION=1 DONT_FAKE_MONOTONIC=1`
    writeFileSync(`${this.directory}/bin/postgres`, `#!/bin/sh\n${variables} exec ${real}/postgres "$@"\n`)
    chmodSync(`${this.directory}/bin/postgres`, 0o755)
  }

  #give(path: string, mode: number): void {
    chownSync(path, this.#account.uid, this.#account.gid)
    chmodSync(path, mode)
  }

  #patroniSettings(): object {
    const address = (port: number): string => `${this.ip}:${port}`
    const role = (username: 'replicator' | 'rewinder') => ({ username, password: PASSWORDS[username] })
    return {
      scope: SCOPE,
      namespace: '/service/',
      name: this.name,
      restapi: { listen: address(8008), connect_address: address(8008) },
      [this.#options.dcs]: { hosts: this.#peers.map(({ ip }) => `${ip}:2379`) },
      bootstrap: {
        dcs: {
          ttl: TTL,
          loop_wait: 2,
          retry_timeout: 3,
          maximum_lag_on_failover: 1_048_576,
          master_start_timeout: 0,
          synchronous_mode: this.#options.synchronous,
          synchronous_mode_strict: this.#options.synchronous,
          synchronous_node_count: 1,
          postgresql: {
            use_pg_rewind: true,
            use_slots: true,
            remove_data_directory_on_rewind_failure: true,
            remove_data_directory_on_diverged_timelines: true,
            parameters: {
              wal_log_hints: 'on',
              max_connections: 100,
              max_wal_senders: 10,
              max_replication_slots: 10,
              wal_keep_size: '64MB',
              max_wal_size: '128MB',
              shared_buffers: '16MB',
              fsync: 'off',
              wal_sender_timeout: '5s',
              wal_receiver_timeout: '5s',
              wal_receiver_status_interval: '1s',
              tcp_user_timeout: '5s',
            },
          },
        },
        initdb: [{ encoding: 'UTF8' }, { locale: 'C.UTF-8' }, 'data-checksums'],
        pg_hba: [
          'local all all trust',
          'host replication replicator 192.0.2.0/24 scram-sha-256',
          'host all all 192.0.2.0/24 scram-sha-256',
        ],
      },
      postgresql: {
        listen: `${this.ip},127.0.0.1:5432`,
        connect_address: address(5432),
        use_unix_socket: true,
        data_dir: `${this.directory}/disk/pg`,
        bin_dir: `${this.directory}/bin`,
        pgpass: `${this.directory}/pgpass`,
        parameters: { unix_socket_directories: `${this.directory}/sock` },
        authentication: {
          superuser: { username: 'postgres', password: PASSWORDS.postgres },
          replication: role('replicator'),
          rewind: role('rewinder'),
        },
      },
      watchdog: this.#options.watchdog
        ? { mode: 'required', driver: 'testing', device: `${this.directory}/watchdog`, safety_margin: -1 }
        : { mode: 'off' },
    }
  }

  #start(argv: readonly string[], log: string, env: Readonly<Record<string, string>> = {}): void {
    const order = {
      argv,
      log: `${this.directory}/${log}.log`,
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', ...env },
    }
    this.#first.child.stdin?.write(`${JSON.stringify(order)}\n`)
  }

  #startEtcd(): void {
    const url = (port: number): string => `http://${this.ip}:${port}`
    const cluster = this.#peers.map(({ name, ip }) => `${name}=http://${ip}:2380`).join(',')
    this.#start(
      [
        ...['etcd', '--name', this.name, '--data-dir', `${this.directory}/etcd`, '--initial-cluster-state', 'new'],
        ...['--initial-cluster-token', SCOPE, '--initial-cluster', cluster, '--unsafe-no-fsync'],
        ...['--listen-peer-urls', url(2380), '--initial-advertise-peer-urls', url(2380)],
        ...['--listen-client-urls', `${url(2379)},http://127.0.0.1:2379`, '--advertise-client-urls', url(2379)],
        // The test's machine may be busy, so that a late heartbeat must not cause an election.
        ...['--heartbeat-interval', '250', '--election-timeout', '2500'],
        ...(this.#options.dcs === 'etcd' ? ['--enable-v2'] : []),
      ],
      'etcd',
    )
  }

  #startPatroni(): void {
    this.#start(['/usr/bin/patroni', `${this.directory}/patroni.json`], 'patroni')
  }

  /** Every process of the node except the first. */
  #processes(): readonly ProcessStatus[] {
    return descendantsOf(this.#first.pid).filter(
      each => isEtcd(each) || isPatroni(each) || isPostgres(each) || each.commandLine[0]?.includes('pg_') === true,
    )
  }

  #kill(which: (process: ProcessStatus) => boolean, signal: NodeJS.Signals): number[] {
    const pids = this.#processes()
      .filter(which)
      .map(({ pid }) => pid)
    for (const pid of pids) {
      try {
        process.kill(pid, signal)
      } catch {
        // The process has ended meanwhile.
      }
    }
    return pids
  }

  killPostmaster(): void {
    const all = this.#processes().filter(isPostgres)
    const postmaster = all.find(({ parent }) => !all.some(({ pid }) => pid === parent))
    if (postmaster !== undefined) process.kill(postmaster.pid, 'SIGKILL')
  }

  /** Kills Patroni first, so that it does not repair anything. It stays stopped until `heal`. */
  killDatabase(): void {
    this.#isDown = true
    this.#kill(isPatroni, 'SIGKILL')
    this.#kill(each => !isEtcd(each), 'SIGKILL')
  }

  /** The program stays stopped until `heal`. */
  killEtcd(): void {
    this.#isDown = true
    this.#kill(isEtcd, 'SIGKILL')
  }

  /** Does the same as a reset by the watchdog: no process runs, and the disk is unchanged. */
  #reset(): void {
    this.wasReset = true
    this.#stopped = []
    this.killDatabase()
    this.killEtcd()
  }

  stop(which: 'patroni' | 'database'): void {
    this.#stopped = this.#kill(which === 'patroni' ? isPatroni : each => !isEtcd(each), 'SIGSTOP')
  }

  resume(): void {
    for (const pid of this.#stopped.splice(0)) {
      try {
        process.kill(pid, 'SIGCONT')
      } catch {
        // The process has ended meanwhile.
      }
    }
  }

  setLink(state: 'up' | 'down'): void {
    execFileSync('ip', ['-n', this.host.name, 'link', 'set', 'eth0', state])
  }

  /** Drops packets from this node to an address; packets in the other direction still arrive. */
  dropTo(ip: string): void {
    execFileSync('ip', ['-n', this.host.name, 'route', 'replace', 'blackhole', `${ip}/32`])
    this.#routes.push(ip)
  }

  /** Limits the data that this node sends to `kilobits` per second. */
  slow(kilobits: number): void {
    const limit = ['rate', `${kilobits}kbit`, 'burst', '8kbit', 'latency', '800ms']
    execFileSync('tc', ['-n', this.host.name, 'qdisc', 'replace', 'dev', 'eth0', 'root', 'tbf', ...limit])
  }

  /**
   * Time up to which a row of the node may be from the future, and so invalid: its clock is ahead,
   * or was set since the row was written. The processes of PostgreSQL see a step one after the
   * other, unlike those of a host with one clock.
   */
  get rowsInvalidUntil(): number {
    return this.#clock > CLOCK_RULE ? Number.POSITIVE_INFINITY : this.#clockStepped + CLOCK_SETTLES
  }

  /** Seconds by which the wall clock of the node's PostgreSQL is ahead. */
  setClock(seconds: number): void {
    if (Math.abs(this.#clock - seconds) > CLOCK_RULE) this.#clockStepped = performance.now()
    this.#clock = seconds
    writeFileSync(`${this.directory}/clock`, `${seconds < 0 ? '' : '+'}${seconds}\n`)
    chmodSync(`${this.directory}/clock`, 0o644)
  }

  fillDisk(): void {
    // Writes until the disk is full.
    spawnSync('dd', ['if=/dev/zero', `of=${this.directory}/disk/filler`, 'bs=1M', 'status=none'])
  }

  /** Undoes every fault. */
  heal(): void {
    this.#isDown = false
    this.resume()
    this.setClock(0)
    rmSync(`${this.directory}/disk/filler`, { force: true })
    for (const ip of this.#routes.splice(0))
      spawnSync('ip', ['-n', this.host.name, 'route', 'del', 'blackhole', `${ip}/32`])
    spawnSync('tc', ['-n', this.host.name, 'qdisc', 'del', 'dev', 'eth0', 'root'])
    this.setLink('up')
  }

  /**
   * Starts the programs that do not run, as systemd does. Debian's units restart Patroni and etcd
   * after a failure.
   */
  #revive(): void {
    if (this.#isDown) return
    const all = this.#processes()
    if (!all.some(isEtcd)) this.#startEtcd()
    if (!all.some(isPatroni)) this.#startPatroni()
  }

  /** Patroni's report about its cluster; undefined if it does not answer in time. */
  async members(): Promise<readonly Member[] | undefined> {
    const stdout = await this.#run(['/usr/bin/curl', '-sS', '--max-time', '5', `http://${this.ip}:8008/cluster`])
    if (stdout === undefined) return undefined
    try {
      return v.parse(CLUSTER, JSON.parse(stdout)).members
    } catch {
      return undefined // a member is starting
    }
  }

  /** Makes another node the leader; throws unless Patroni reports it. */
  async switchover(from: string, to: string): Promise<void> {
    const command = ['/usr/bin/patronictl', '-c', `${this.directory}/patroni.json`, 'switchover']
    // The option has another name in each major release; Patroni 4 has no --master.
    const help = (await this.#run([...command, '--help'])) ?? ''
    const option = ['--leader', '--primary'].find(name => help.includes(name)) ?? '--master'
    await this.#run([...command, SCOPE, option, from, '--candidate', to, '--force'])
    await eventually(
      `${to} is the leader after the switchover`,
      async () => (await this.members())?.some(({ name, role }) => name === to && role === 'leader'),
      TTL * 1000,
    )
  }

  /**
   * The answer of this node's server as text, one line for each row; undefined if it does not
   * answer in time.
   */
  async psql(statement: string, database = 'pop3authd'): Promise<readonly string[] | undefined> {
    const target = `host=${this.directory}/sock user=postgres dbname=${database} connect_timeout=3`
    const stdout = await this.#run(['/usr/bin/psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', statement, target])
    return stdout?.split('\n').filter(line => line !== '')
  }

  /** The output of a command on this node; undefined if it fails or takes longer than 20 s. */
  #run(command: readonly string[]): Promise<string | undefined> {
    const drop = [
      'setpriv',
      '--reuid',
      `${this.#account.uid}`,
      '--regid',
      `${this.#account.gid}`,
      '--clear-groups',
      '--',
    ]
    const [file = '', ...args] = [...this.host.prefix, ...drop, ...command]
    const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', PGPASSWORD: PASSWORDS.postgres }
    const options = { timeout: 20_000, killSignal: 'SIGKILL', cwd: this.directory, env, maxBuffer: 2 ** 28 } as const
    return new Promise(resolve => {
      execFile(file, args, options, (error, stdout) => resolve(error === null ? stdout : undefined))
    })
  }

  async remove(): Promise<void> {
    clearInterval(this.#supervisor)
    this.#watchdog?.close()
    this.resume()
    this.#kill(() => true, 'SIGKILL')
    await this.#first.stop(1000).catch(() => undefined)
    this.#first.signal('SIGKILL')
    await this.#first.ended
    // Unmounts the memory disk, lazily if a process still uses it.
    spawnSync('umount', ['-l', `${this.directory}/disk`])
  }
}
