import { readdirSync, readFileSync } from 'node:fs'
import { eventually } from '../eventually.ts'
import { giveCluster } from '../postgres/embedded-cluster.ts'
import { commandOf } from '../stack.ts'
import { Program, type ProgramOptions } from './program.ts'

/** `auth-relay up --demo` on free ports in a directory of the test, with the text of its screen. */
export class Demo {
  readonly directory: string
  readonly program: Program

  /** `cluster`: whether the demo makes its database itself, or finds that of an earlier start. */
  constructor(
    directory: string,
    options: ProgramOptions & { readonly command?: readonly string[]; readonly cluster?: 'new' | 'earlier' } = {},
  ) {
    const { command = commandOf('auth-relay'), env, cluster = 'new', ...rest } = options
    if (cluster === 'earlier') giveCluster(`${directory}/state`)
    this.directory = directory
    this.program = new Program('up', [...command, 'up', '--demo', '--dir', directory], {
      cwd: new URL('../../..', import.meta.url).pathname,
      ...rest,
      env: { POP3_PORT: '0', POP3S_PORT: '0', SMTP_PORT: '0', STATUS_PORT: '0', ...env },
    })
  }

  /** Waits until all programs run and the screen is written. */
  async ready(): Promise<void> {
    await this.program.waitForLine(/^auth-relay ready/, 90_000)
    await this.program.waitForLine(/^Nothing leaves this machine/)
  }

  /** Port of a program, read from `listen=` in its ready line. */
  port(name: 'popup' | 'sslwrap' | 'wrap' | 'status-page'): number {
    const ready = this.program.lines.find(line => line.startsWith('auth-relay ready')) ?? ''
    const port = new RegExp(` ${name}\\.listen=\\S*:(\\d+)`).exec(ready)?.[1]
    if (port === undefined) throw new Error(`no port of ${name} in: ${ready}`)
    return Number(port)
  }

  /** The command of the screen that begins with this word, as a user would copy it. */
  command(first: string | RegExp): string {
    const line = this.program.lines.find(
      text => text.startsWith('   ') && text.trim().split(' ')[0]?.match(first) !== null,
    )
    if (line === undefined) throw new Error(`no command ${first} on the screen:\n${this.program.transcript()}`)
    return line.trim()
  }

  /** Waits until no process of this demo is left. */
  async ended(): Promise<void> {
    await eventually(
      `no process of ${this.directory} is left`,
      () => processesNaming(this.directory).length === 0,
      20_000,
    )
  }

  /** The demo's programs and servers that run now. */
  processes(): readonly string[] {
    return processesNaming(this.directory)
  }
}

/** `PID COMMAND LINE` of every process whose command line holds a text. */
export function processesNaming(text: string): readonly string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap(pid => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        return words.includes(text) ? [`${pid} ${words.trim()}`] : []
      } catch {
        return [] // the process ended meanwhile
      }
    })
}
