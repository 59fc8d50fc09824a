import { once } from 'node:events'
import { chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { LineSplitter } from '../src/wire/lines.ts'
import { Program } from '../test/harness/processes/program.ts'
import { type Measured, quantile } from './report/report.ts'

const root = new URL('..', import.meta.url).pathname
const PASSWORD = 'sesame'
/** SHA-512 crypt with few rounds, because the cost of the hash is not measured here. */
const HASH =
  '$6$rounds=1000$authrelaytest$eJl.qIixYirZUa1xFchBpbsRQZKvoUU2sa0mzXf/95OdL39FHDQAv6I/M6cccSxOUXTfzc/FfgvbpgZp45x9I/'
const OWNER = process.geteuid?.() === 0 ? 61_221 : (process.getuid?.() ?? 0)
const WARM_UP = 50

export type LoginCostOptions = {
  /** Folder for maildrop, settings and sockets. */
  readonly directory: string
  /** Socket of a running authd, which must grant loopback. */
  readonly authdSocket: string
  readonly rounds: number
  /** Logins of each side in each round, one after the other. */
  readonly logins: number
}

/** Milliseconds from PASS to `+OK`, a figure a round. */
export type LoginCost = Readonly<Record<'p50' | 'p99', { readonly granted: Measured; readonly plain: Measured }>>

/**
 * Measures the time that a login waits for the commit of its grant: the same popup with authd and
 * without, in alternating rounds. Every login comes from another loopback address, so that no two
 * logins share a grant.
 */
export async function measureLoginCost(options: LoginCostOptions): Promise<LoginCost> {
  const { directory, authdSocket, rounds, logins } = options
  const home = `${directory}/ann`
  for (const path of [home, ...['', '/new', '/cur', '/tmp'].map(folder => `${home}/Maildir${folder}`)]) {
    mkdirSync(path, { mode: 0o700 })
    if (process.geteuid?.() === 0) chownSync(path, OWNER, OWNER)
  }
  writeFileSync(`${directory}/passwd`, `ann:${HASH}:${OWNER}:${OWNER}:${home}:Maildir\n`, { mode: 0o600 })
  const granted = await Popup.start(directory, 'granted', authdSocket)
  const plain = await Popup.start(directory, 'plain', '')
  try {
    const times = { granted: [] as number[][], plain: [] as number[][] }
    let address = 0
    for (let round = -1; round < rounds; round++) {
      for (const [name, popup] of [['granted', granted] as const, ['plain', plain] as const]) {
        const taken: number[] = []
        for (let n = 0; n < (round < 0 ? WARM_UP : logins); n++) taken.push(await popup.login(address++))
        if (round >= 0) times[name].push(taken)
      }
    }
    const measured = (share: number, of: readonly number[][]): Measured => ({
      rounds: of.map(taken => quantile(taken, share)),
    })
    const both = (share: number) => ({ granted: measured(share, times.granted), plain: measured(share, times.plain) })
    return { p50: both(0.5), p99: both(0.99) }
  } finally {
    await granted.stop()
    await plain.stop()
  }
}

class Popup {
  readonly #program: Program
  readonly #port: number

  private constructor(program: Program, port: number) {
    this.#program = program
    this.#port = port
  }

  static async start(directory: string, name: string, authdSocket: string): Promise<Popup> {
    const config = `${directory}/${name}.toml`
    writeFileSync(
      config,
      `configured = true
run_dir = "${directory}/${name}"
syslog = false
[popup]
listen = ["127.0.0.1:0"]
checker = "passwd-file"
passwd_file = "${directory}/passwd"
login_user = "nobody"
hostname = "bench"
max_per_address = 0
[authd]
socket = "${authdSocket}"
`,
    )
    mkdirSync(`${directory}/${name}`, { mode: 0o755 })
    const program = new Program('popup', [process.execPath, `${root}dist/popup.js`, '--config', config])
    const ready = await program.waitForLine(/^popup ready .*/, 30_000)
    return new Popup(program, Number(/listen=127\.0\.0\.1:(\d+)/.exec(ready)?.[1]))
  }

  /** One session; milliseconds that its password took. */
  async login(address: number): Promise<number> {
    const localAddress = `127.${1 + (address >> 16)}.${(address >> 8) & 255}.${address & 255}`
    const socket = connect({ host: '127.0.0.1', port: this.#port, localAddress, noDelay: true })
    const splitter = new LineSplitter(1000)
    const line = async (): Promise<void> => {
      for (;;) {
        const [chunk] = await once(socket, 'data')
        const [first] = splitter.push(chunk).lines
        if (first === undefined) continue
        if (!first.startsWith('+OK')) throw new Error(`popup answered: ${first}`)
        return
      }
    }
    await line()
    socket.write('USER ann\r\n')
    await line()
    const began = performance.now()
    socket.write(`PASS ${PASSWORD}\r\n`)
    await line()
    const took = performance.now() - began
    socket.end('QUIT\r\n')
    await text(socket)
    return took
  }

  async stop(): Promise<void> {
    await this.#program.stop()
  }
}
