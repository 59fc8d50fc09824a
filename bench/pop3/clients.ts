import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import * as v from 'valibot'
import { contentOf } from './maildrops.ts'

/** One command of a session, and the answer that it must get. */
export interface Step {
  readonly command: string
  /** The beginning of the first line. */
  readonly expected?: string
  /** Lines and octets of a multi-line response, termination included. */
  readonly lines?: number
  readonly octets?: number
}

const octetsOnTheWire = (content: string): number => content.length + content.split('\n').length - 1

/** STAT and the complete listings of a maildrop with `count` messages. */
export const listing = (count: number, body: string): readonly Step[] => {
  const numbers = Array.from({ length: count }, (_, number) => number)
  const total = numbers.reduce((sum, number) => sum + octetsOnTheWire(contentOf(number, body)), 0)
  return [
    { command: 'STAT', expected: `+OK ${count} ${total}\r` },
    { command: 'UIDL', lines: count + 1 },
  ]
}

/** RETR of the message of that number, from 0 on. */
export const retrieve = (number: number, body: string): Step => ({
  command: `RETR ${number + 1}`,
  octets: octetsOnTheWire(contentOf(number, body)) + '.\r\n'.length,
})

export const LIST_OF_TEN: Step = { command: 'LIST', lines: 11 }

/** A session from login to QUIT; `%d` in `user` is the number of the client. */
export const session = (user: string, steps: readonly Step[]): readonly Step[] => [
  { command: `USER ${user}` },
  { command: 'PASS secret' },
  ...steps,
  { command: 'QUIT' },
]

/** The lines that bench/pop3/clients.c reads. */
const scriptFor = (steps: readonly Step[]): string =>
  steps
    .map(({ command, expected = '+OK', lines, octets }) => {
      const isMultiline = lines !== undefined || octets !== undefined
      const counts = isMultiline ? `${octets ?? 0} ${lines ?? 0}` : '- -'
      return `${counts} ${expected.replace(/\r$/, '').replaceAll(' ', '_')} ${command}\n`
    })
    .join('')

/** The output of bench/pop3/clients.c. Times in seconds; `cpu`: of the clients. */
const figuresSchema = v.object({
  perSecond: v.number(),
  p50: v.number(),
  p99: v.number(),
  login50: v.number(),
  login99: v.number(),
  resumed: v.number(),
  cpu: v.number(),
})
export type ClientFigures = v.InferOutput<typeof figuresSchema>

export type Run = {
  readonly port: number
  readonly clients: number
  readonly sessions: number
  readonly steps: readonly Step[]
  /** Default: clear. */
  readonly tls?: 'clear' | 'full' | 'resumed'
  /** Number of addresses of 127.0.0.0/8 that the sessions use in rotation; default 0: 127.0.0.1. */
  readonly addresses?: number
}

/** The compiled load generator. */
export class Pop3Clients {
  readonly #program: string

  /** Throws if it cannot be compiled. */
  constructor(directory: string) {
    this.#program = `${directory}/clients`
    const source = new URL('clients.c', import.meta.url).pathname
    const { status, stderr } = spawnSync('cc', ['-O2', '-o', this.#program, source, '-lssl', '-lcrypto'])
    if (status !== 0) throw new Error(`cc: ${String(stderr)}: apt-get install gcc libc6-dev libssl-dev`)
  }

  /** Sessions from first to last. Rejects if an answer was wrong. */
  async run(run: Run): Promise<ClientFigures> {
    const child = this.#start(run, [])
    const printed = await text(child.stdout)
    if (printed === '') throw new Error(`port ${run.port}: the client printed no figures; its message is above`)
    return v.parse(figuresSchema, JSON.parse(printed))
  }

  /**
   * Sessions that stay open after their last step until the child is stopped; fulfilled when all
   * are open.
   */
  async hold(run: Omit<Run, 'sessions'>): Promise<ChildProcess> {
    const child = this.#start({ ...run, sessions: run.clients }, ['hold'])
    const [printed] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
    if (String(printed) !== 'open\n') throw new Error('the client did not open its sessions; its message is above')
    return child
  }

  #start({ port, clients, sessions, steps, tls = 'clear', addresses = 0 }: Run, more: readonly string[]) {
    const numbers = [port, clients, sessions, 0].map(String)
    const child = spawn(this.#program, [...numbers, tls, String(addresses), ...more], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    child.stdin.end(scriptFor(steps))
    return child
  }
}
