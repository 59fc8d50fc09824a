import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { eventually } from '../eventually.ts'
import { type LogLine, parseLogLine } from './log-line.ts'

/** How a program ended. */
export type Ending = { readonly code: number | null; readonly signal: NodeJS.Signals | null }

export type ProgramOptions = {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** Words before the command, for example to enter a network namespace. */
  readonly prefix?: readonly string[]
  /** Further descriptors of the child, from 3 on. */
  readonly descriptors?: readonly number[]
}

const KILLED_WITH_PARENT = ['setpriv', '--pdeathsig', 'KILL', '--']

/** Programs of this test file that still run; they are ended when the test process ends. */
const running = new Set<Program>()
process.once('exit', () => {
  for (const program of running) program.signal('SIGKILL')
})

/** A child process of a test. Its output is kept line by line, and `stop` ends it by its pid. */
export class Program {
  readonly name: string
  readonly child: ChildProcess
  /** Lines of standard output and standard error, in order of arrival. */
  readonly lines: string[] = []
  readonly ended: Promise<Ending>
  #ending: Ending | undefined
  readonly #log: LogLine[] = []
  #linesParsed = 0

  constructor(name: string, command: readonly string[], options: ProgramOptions = {}) {
    // If the test process is killed, the kernel kills its programs, and they end their own
    // children.
    const [file = '', ...args] = [...KILLED_WITH_PARENT, ...(options.prefix ?? []), ...command]
    this.name = name
    this.child = spawn(file, args, {
      cwd: options.cwd ?? '/',
      env: { PATH: process.env['PATH'], ...options.env },
      stdio: ['pipe', 'pipe', 'pipe', ...(options.descriptors ?? [])],
    })
    running.add(this)
    const streams = [this.child.stdout, this.child.stderr].filter(stream => stream !== null)
    for (const input of streams) createInterface({ input }).on('line', line => this.lines.push(line))
    this.child.stdin?.on('error', () => {}) // a program need not read the input
    this.child.once('error', error => this.lines.push(`${file}: ${error.message}`))
    this.ended = Promise.race([once(this.child, 'close'), once(this.child, 'error')]).then(([code, signal]) => {
      running.delete(this)
      this.#ending = { code: typeof code === 'number' ? code : null, signal: isSignal(signal) ? signal : null }
      return this.#ending
    })
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} was not started: ${this.lines.join('\n')}`)
    return this.child.pid
  }

  /** Undefined while the program runs. */
  get ending(): Ending | undefined {
    return this.#ending
  }

  /** The parsed lines of its log. A line is parsed once, because tests poll. */
  get log(): readonly LogLine[] {
    for (; this.#linesParsed < this.lines.length; this.#linesParsed++) {
      const line = parseLogLine(this.lines[this.#linesParsed] ?? '')
      if (line !== undefined) this.#log.push(line)
    }
    return this.#log
  }

  /**
   * Polls until the deadline. A failure shows the whole output, and comes at once if the program
   * has ended.
   */
  async waitFor<T>(what: string, probe: () => T | undefined | false, deadlineMs?: number): Promise<T> {
    const answerOrEnd = (): { answer: T } | 'ended' | undefined => {
      const hasEnded = this.#ending !== undefined
      const answer = probe()
      if (answer !== undefined && answer !== false) return { answer }
      return hasEnded ? 'ended' : undefined
    }
    const found = await eventually(what, answerOrEnd, deadlineMs).catch((error: unknown) => {
      throw new Error(`${error instanceof Error ? error.message : String(error)}\n${this.transcript()}`, {
        cause: error,
      })
    })
    if (found !== 'ended') return found.answer
    throw new Error(`${this.name} ended (${JSON.stringify(this.#ending)}) before: ${what}\n${this.transcript()}`)
  }

  /** The first line that matches. */
  waitForLine(pattern: RegExp, deadlineMs?: number): Promise<string> {
    return this.waitFor(`${this.name} prints ${pattern}`, () => this.lines.find(line => pattern.test(line)), deadlineMs)
  }

  /** The output from the n-th line on, for the message of a failure. */
  transcript(from = 0): string {
    return this.lines
      .slice(from)
      .map(line => `  ${this.name}| ${line}`)
      .join('\n')
  }

  /** Sends a signal to this process only. */
  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** Sends SIGTERM, and SIGKILL after the deadline; returns how the program ended. */
  async stop(deadlineMs = 10_000): Promise<Ending> {
    if (this.#ending !== undefined) return this.#ending
    this.signal('SIGTERM')
    const timer = setTimeout(() => this.signal('SIGKILL'), deadlineMs)
    const ending = await this.ended
    clearTimeout(timer)
    return ending
  }
}

const isSignal = (value: unknown): value is NodeJS.Signals => typeof value === 'string' && value.startsWith('SIG')

/** Runs a command until it ends; returns its output and how it ended. */
export async function run(
  command: readonly string[],
  options: ProgramOptions & { input?: string } = {},
): Promise<Program> {
  const program = new Program(command[0] ?? '', command, options)
  program.child.stdin?.end(options.input ?? '')
  await program.ended
  return program
}
