import { chmodSync, chownSync, copyFileSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { onTestFailed } from 'vitest'
import { formatSettings, type Overrides } from '../../src/auth-relay/text/settings-text.ts'
import { giveCluster } from './postgres/embedded-cluster.ts'
import { ENGINE_OF_RUN, ENGINE_SETTINGS } from './processes/engines.ts'
import type { LogLine } from './processes/log-line.ts'
import { Program, type ProgramOptions, run } from './processes/program.ts'
import { temporaryDirectory } from './temporary-directory.ts'

const root = new URL('../..', import.meta.url).pathname

/** The programs of this package as they are installed. */
export type ProgramName = 'auth-relay' | 'authd' | 'pop3d' | 'popup' | 'sslwrap' | 'wrap'

/** Words that start a program of auth-relay on the Node.js of this package. */
export const commandOf = (name: ProgramName, ...args: readonly string[]): readonly string[] => [
  process.execPath,
  `${root}dist/${name}.js`,
  ...args,
]

const isRoot = process.geteuid?.() === 0

/**
 * Ids that no account of the host has, so that no other process or file has them. Without root: the
 * ids of the test.
 */
const id = (number: number): number => (isRoot ? number : (process.getuid?.() ?? number))
export const TEST_IDS = {
  authd: id(61210),
  login: id(61211),
  tls: id(61212),
  gate: id(61213),
  smtpd: id(61214),
  database: id(61215),
  status: id(61216),
  alerts: id(61217),
} as const

/** A mailbox of a test. */
export type TestAccount = { readonly login: string; readonly uid: number; readonly maildir: string }

/**
 * The password of every account that a Stack makes, and its hash (SHA-512 crypt with few rounds).
 */
export const TEST_PASSWORD = 'sesame'
const TEST_HASH =
  '$6$rounds=1000$authrelaytest$eJl.qIixYirZUa1xFchBpbsRQZKvoUU2sa0mzXf/95OdL39FHDQAv6I/M6cccSxOUXTfzc/FfgvbpgZp45x9I/'

/**
 * Longest time for which a program of a test waits for the database or for authd. The defaults are
 * shorter than a pause of a busy machine, so that a test without a fault would see the answer to a
 * fault.
 */
const PATIENCE = '10s'

/** Settings by section and name, as objects of two levels like the file. */
export type TestSettings = Overrides

/**
 * A set of auth-relay programs in a separate directory, with a settings file made from an object.
 * Ports are 0 and are read from the ready lines. If a test fails, it shows everything that its
 * programs logged.
 */
export class Stack {
  readonly directory: string
  readonly config: string
  readonly #removeDirectory: () => void
  readonly #programs = new Map<string, Program>()
  readonly #accounts: TestAccount[] = []
  /** The settings want the embedded PostgreSQL. */
  #isEmbedded = false

  constructor(settings: TestSettings = {}) {
    const { path, remove } = temporaryDirectory()
    this.directory = path
    this.config = `${path}/auth-relay.toml`
    this.#removeDirectory = remove
    for (const name of ['run', 'state', 'mail']) {
      mkdirSync(`${path}/${name}`)
      chmodSync(`${path}/${name}`, 0o755)
    }
    // A copy, because other accounts may be unable to read the checkout.
    copyFileSync(`${root}test/harness/smtp/smtpd.sh`, `${path}/smtpd.sh`)
    chmodSync(`${path}/smtpd.sh`, 0o755)
    this.secret('sslhack.pass', 'preamble of this test')
    this.secret('passwd', '')
    this.configure(settings)
  }

  /**
   * Writes the settings file: the defaults of test stacks, overridden by the settings of this test.
   */
  configure(settings: TestSettings): void {
    const base: TestSettings = {
      '': { configured: true, run_dir: `${this.directory}/run`, state_dir: `${this.directory}/state`, syslog: false },
      database: isRoot ? { embedded_user: `${TEST_IDS.database}` } : {},
      popup: {
        listen: ['127.0.0.1:0'],
        hostname: 'mx.example.org',
        login_user: `${TEST_IDS.login}`,
        passwd_file: `${this.directory}/passwd`,
        ssl_hack_pass: `${this.directory}/sslhack.pass`,
        fail_delays: ['0'],
        grant_wait: PATIENCE,
        ...ENGINE_SETTINGS,
      },
      pop3d: ENGINE_SETTINGS,
      sslwrap: {
        user: `${TEST_IDS.tls}`,
        workers: 1,
        cert: `${this.directory}/tls.crt`,
        key: `${this.directory}/tls.key`,
        hostname: 'mx.example.org',
      },
      authd: {
        socket: `${this.directory}/run/authd.sock`,
        usage_socket: `${this.directory}/run/usage.sock`,
        usage_users: [`${TEST_IDS.gate}`],
        commit_wait: PATIENCE,
      },
      wrap: {
        smtpd: [`${this.directory}/smtpd.sh`, 'example.org'],
        user: `${TEST_IDS.gate}`,
        smtpd_user: isRoot ? `${TEST_IDS.smtpd}` : '',
        wrap_timeout: PATIENCE,
        ...ENGINE_SETTINGS,
      },
    }
    const sections = new Set([...Object.keys(base), ...Object.keys(settings)])
    const merged = Object.fromEntries([...sections].map(name => [name, { ...base[name], ...settings[name] }]))
    this.#isEmbedded = merged['database']?.['embedded'] === true
    const text = formatSettings(merged, { head: ['Settings of a test.'], withDefaults: false })
    writeFileSync(this.config, text, { mode: 0o644 })
  }

  /** Writes a file that only its owner can read; returns its path. */
  secret(name: string, text: string): string {
    const path = `${this.directory}/${name}`
    writeFileSync(path, `${text}\n`, { mode: 0o600 })
    return path
  }

  /** Adds a mailbox to the passwd file, with these messages (text with LF line ends). */
  account(login: string, messages: readonly string[] = []): TestAccount {
    const uid = id(61221 + this.#accounts.length)
    const home = `${this.directory}/mail/${login}`
    const maildir = `${home}/Maildir`
    for (const path of [home, maildir, ...['new', 'cur', 'tmp'].map(folder => `${maildir}/${folder}`)]) {
      mkdirSync(path)
      chownSync(path, uid, uid)
      chmodSync(path, 0o700)
    }
    for (const [index, message] of messages.entries()) {
      const path = `${maildir}/new/${1_700_000_000 + index}.M${index}.mx`
      writeFileSync(path, message, { mode: 0o600 })
      chownSync(path, uid, uid)
      // A maildrop does not list messages of the current second.
      utimesSync(path, 1_700_000_000 + index, 1_700_000_000 + index)
    }
    const account = { login, uid, maildir }
    this.#accounts.push(account)
    const lines = this.#accounts.map(
      known =>
        `${known.login}:${TEST_HASH}:${known.uid}:${known.uid}:${known.maildir.replace(/\/Maildir$/, '')}:Maildir`,
    )
    this.secret('passwd', lines.join('\n'))
    return account
  }

  /** Starts a program and waits for its ready line. */
  async start(
    name: ProgramName,
    options: ProgramOptions & { readonly args?: readonly string[] } = {},
  ): Promise<Program> {
    const program = this.launch(name, options)
    await program.waitForLine(new RegExp(`^${name} ready`), 90_000)
    return program
  }

  /** Starts a program that may never become ready. */
  launch(name: ProgramName, options: ProgramOptions & { readonly args?: readonly string[] } = {}): Program {
    const { args = ['--config', this.config], ...rest } = options
    if (args.includes('up') && this.#isEmbedded) giveCluster(`${this.directory}/state`)
    const program = new Program(name, commandOf(name, ...args), { cwd: this.directory, ...rest })
    this.#programs.set(name, program)
    return program
  }

  /** Runs a program of auth-relay until it ends, for example a command. */
  run(name: ProgramName, args: readonly string[], options: ProgramOptions & { input?: string } = {}): Promise<Program> {
    return run(commandOf(name, ...args), { cwd: this.directory, ...options })
  }

  /** The newest process of the program of that name. */
  program(name: ProgramName): Program {
    const program = this.#programs.get(name)
    if (program === undefined) throw new Error(`${name} was not started`)
    return program
  }

  /**
   * Port of the n-th address after `key` in the program's ready line (`listen=A,B` or `listen=A
   * listen=B`).
   */
  port(name: ProgramName, index = 0, key = 'listen'): number {
    const ready = this.program(name).lines.find(line => line.startsWith(`${name} ready`)) ?? ''
    const words = ready.split(' ').filter(word => word.startsWith(`${key}=`))
    const address = words.flatMap(word => word.slice(key.length + 1).split(','))[index]
    const port = /:(\d+)$/.exec(address ?? '')?.[1]
    if (port === undefined) throw new Error(`no ${key} port ${index} in: ${ready}`)
    return Number(port)
  }

  /** The lines of a program's log. Under `auth-relay up` they are in the output of that program. */
  log(name: ProgramName): readonly LogLine[] {
    const writers = new Set([this.#programs.get(name), this.#programs.get('auth-relay')])
    return [...writers].flatMap(writer => writer?.log.filter(({ program }) => program === name) ?? [])
  }

  /** Waits for the first line of a program's log with these fields. */
  waitForLog(
    name: ProgramName,
    fields: Readonly<Record<string, string | RegExp>>,
    deadlineMs?: number,
  ): Promise<LogLine> {
    const matches = (line: LogLine): boolean =>
      Object.entries(fields).every(([key, wanted]) => {
        const value = line.fields[key]
        return value !== undefined && (typeof wanted === 'string' ? value === wanted : wanted.test(value))
      })
    const writer = this.#programs.get(name) ?? this.program('auth-relay')
    const pairs = Object.entries(fields).map(([key, wanted]) => `${key}=${wanted}`)
    return writer.waitFor(`${name} logs ${pairs.join(' ')}`, () => this.log(name).find(matches), deadlineMs)
  }

  /**
   * Waits for the log line at level debug which states that the engine of this test run carries the
   * connections of a setting. Fails at once if the line names another engine.
   */
  async waitForEngine(name: 'popup' | 'wrap', setting: 'popup.engine' | 'pop3d.engine' | 'wrap.engine'): Promise<void> {
    const logLine = await this.#programs
      .get(name)
      ?.waitFor(`a process logs its ${setting}`, () =>
        this.#programs
          .get(name)
          ?.log.find(({ fields }) => fields['event'] === 'engine_used' && fields['setting'] === setting),
      )
    if (logLine?.fields['engine'] !== ENGINE_OF_RUN)
      throw new Error(`${setting} is ${logLine?.fields['engine']}, and this run is one of ${ENGINE_OF_RUN}`)
  }

  /** The whole output of all programs. */
  transcript(): string {
    return [...this.#programs.values()].map(program => program.transcript()).join('\n')
  }

  /** Called inside a test: if the test fails, shows the output since this call. */
  showLogsOnFailure(): void {
    const before = new Map([...this.#programs.values()].map(program => [program, program.lines.length]))
    onTestFailed(() => {
      const programs = [...this.#programs.values()]
      console.error(programs.map(program => program.transcript(before.get(program))).join('\n'))
    })
  }

  /** Stops the programs, last started first. */
  async stopPrograms(): Promise<void> {
    for (const program of [...this.#programs.values()].reverse()) await program.stop(30_000)
    this.#programs.clear()
  }

  /** Stops the programs and removes the directory. */
  async stop(): Promise<void> {
    await this.stopPrograms()
    this.#removeDirectory()
  }
}
