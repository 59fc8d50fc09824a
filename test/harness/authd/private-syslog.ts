import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { eventually } from '../eventually.ts'
import { Program, run } from '../processes/program.ts'
import { pathOf } from '../runner/describe-with.ts'

/**
 * An rsyslogd for one test, with its own input socket. It writes to a FIFO, as the original's
 * instructions describe, and writes the same lines to a file. The host's own syslog is not used.
 */
export class PrivateSyslog {
  readonly fifo: string
  readonly file: string
  /** A directory for the beginning of PATH, with a logger(1) that writes to this syslog. */
  readonly binaries: string
  #program: Program
  readonly #directory: string

  private constructor(directory: string, program: Program) {
    this.fifo = `${directory}/fifo`
    this.file = `${directory}/mail.log`
    this.binaries = `${directory}/bin`
    this.#program = program
    this.#directory = directory
  }

  /** Starts rsyslogd with its files in `directory`, which must exist. */
  static async start(directory: string): Promise<PrivateSyslog> {
    await run(['mkfifo', '-m', '600', `${directory}/fifo`])
    writeFileSync(
      `${directory}/rsyslog.conf`,
      [
        `global(workDirectory="${directory}")`,
        'module(load="imuxsock" SysSock.Use="off")',
        `input(type="imuxsock" Socket="${directory}/log" RateLimit.Interval="0")`,
        'module(load="builtin:omfile" Template="RSYSLOG_TraditionalFileFormat")',
        `mail.* action(type="ompipe" Pipe="${directory}/fifo" Template="RSYSLOG_TraditionalFileFormat")`,
        `mail.* action(type="omfile" File="${directory}/mail.log")`,
        '',
      ].join('\n'),
    )
    mkdirSync(`${directory}/bin`)
    const logger = pathOf('logger') ?? 'logger'
    writeFileSync(`${directory}/bin/logger`, `#!/bin/sh\nexec ${logger} -u ${directory}/log "$@"\n`)
    chmodSync(`${directory}/bin/logger`, 0o755)
    return new PrivateSyslog(directory, await rsyslogd(directory))
  }

  /** Ends rsyslogd by a signal and starts it again. */
  async restart(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    this.#program.signal(signal)
    await this.#program.ended
    for (const left of ['log', 'pid']) rmSync(`${this.#directory}/${left}`, { force: true })
    this.#program = await rsyslogd(this.#directory)
  }

  /** Writes one line with logger(1), as a daemon of that name would. */
  async log(tag: string, message: string, priority = 'mail.info'): Promise<void> {
    const command = [`${this.binaries}/logger`, '-t', tag, '-p', priority, '--id=4242', '--', message]
    const { ending, lines } = await run(command)
    if (ending?.code !== 0) throw new Error(`logger: ${lines.join('\n')}`)
  }

  /** The first line of the mail log that matches. */
  waitForLine(pattern: RegExp): Promise<string> {
    return eventually(`${this.file} has a line ${pattern}`, () =>
      existsSync(this.file)
        ? readFileSync(this.file, 'utf8')
            .split('\n')
            .find(line => pattern.test(line))
        : undefined,
    )
  }

  async stop(): Promise<void> {
    await this.#program.stop()
  }
}

async function rsyslogd(directory: string): Promise<Program> {
  const files = ['-f', `${directory}/rsyslog.conf`, '-i', `${directory}/pid`]
  const program = new Program('rsyslogd', [pathOf('rsyslogd') ?? 'rsyslogd', '-n', ...files])
  await program.waitFor('rsyslogd listens', () => existsSync(`${directory}/log`))
  return program
}
