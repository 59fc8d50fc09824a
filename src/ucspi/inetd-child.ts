import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type Ending, RepeatedSpawn, reapChildren, waitFor } from '../libc/child-process.ts'

/** A child; `ended` is undefined if its status is not known. */
export type InetdChild = { readonly pid: number; readonly ended: Promise<Ending | undefined> }

/** A connection that a program is to run on; `close` closes our end. */
export type ConnectionSocket = { readonly descriptor: number; close(): void }

/** Runs one program many times, each time on another connection. */
export type ConnectionProgram = {
  /**
   * Runs it on a connection and closes our end of that. The child finds a socket that waits: one
   * written for that would not understand EAGAIN.
   * `environment` (`NAME=value`) follows what every child has, without the variables named
   * `without`. Rejects if it cannot be run; the socket is then still open here.
   */
  run(
    socket: ConnectionSocket,
    environment: readonly (string | Uint8Array)[],
    without?: readonly string[],
  ): Promise<InetdChild>
}

/**
 * A program that runs with a connection as its descriptors 0 and 1, as under inetd and tcpserver.
 * The connection must be blocking.
 */
export class InetdProgram implements ConnectionProgram {
  readonly #file: string
  readonly #argv: readonly (string | Uint8Array)[]
  readonly #environment: readonly (string | Uint8Array)[]
  readonly #spawn: RepeatedSpawn

  /** `environment`: the `NAME=value` strings of every child. */
  constructor(file: string, argv: readonly (string | Uint8Array)[], environment: readonly (string | Uint8Array)[]) {
    this.#file = file
    this.#argv = argv
    this.#environment = environment
    this.#spawn = new RepeatedSpawn(file, argv, environment)
  }

  async run(
    socket: ConnectionSocket,
    environment: readonly (string | Uint8Array)[],
    without: readonly string[] = [],
  ): Promise<InetdChild> {
    const spawn = without.length === 0 ? this.#spawn : this.#spawnWithout(new Set(without))
    const pid = await spawn.start(socket.descriptor, environment)
    const ended = waitFor(pid)
    socket.close()
    return { pid, ended }
  }

  /**
   * Starts it on this thread, which waits until the program's execve is done. Returns the pid, to
   * be reaped by `reapStarted`. `block`: first the names of the variables that this start lacks,
   * `without` of them, then its `NAME=value` strings, each ended by NUL. The descriptor stays with
   * the caller. Throws SystemCallError.
   */
  startHere(descriptor: number, block: Buffer, without: number): number {
    if (without === 0) return this.#spawn.startHere(descriptor, block)
    const names = new Set<string>()
    let own = 0
    for (let count = 0; count < without; count += 1) {
      const nul = block.indexOf(0, own)
      if (nul < 0) throw new RangeError(`a block with fewer than ${without} names`)
      names.add(block.toString('latin1', own, nul))
      own = nul + 1
    }
    return this.#spawnWithout(names).startHere(descriptor, block.subarray(own))
  }

  /**
   * Reaps children of `startHere` that have ended, in a process that has no others. To be called at
   * SIGCHLD.
   */
  static reapStarted(visit: (pid: number, ending: Ending) => void): void {
    reapChildren(visit)
  }

  #spawnWithout(names: ReadonlySet<string>): RepeatedSpawn {
    return new RepeatedSpawn(
      this.#file,
      this.#argv,
      this.#environment.filter(variable => !names.has(nameOf(variable))),
    )
  }
}

/**
 * The same with the runtime's function to start a program, for connections that are streams of the
 * runtime. It starts the child in the same turn, before the event loop could read from the
 * connection, and makes the child's descriptors blocking.
 */
export class SpawnedProgram implements ConnectionProgram {
  readonly #file: string
  readonly #argv: readonly string[]
  readonly #environment: ReadonlyMap<string, string>

  /** As of InetdProgram. The runtime passes texts in UTF-8. */
  constructor(file: string, argv: readonly (string | Uint8Array)[], environment: readonly (string | Uint8Array)[]) {
    this.#file = file
    this.#argv = argv.map(textOf)
    this.#environment = new Map(environment.map(variableOf))
  }

  async run(
    socket: ConnectionSocket,
    environment: readonly (string | Uint8Array)[],
    without: readonly string[] = [],
  ): Promise<InetdChild> {
    const variables = new Map(this.#environment)
    for (const name of without) variables.delete(name)
    for (const variable of environment) variables.set(...variableOf(variable))
    const [argv0 = this.#file, ...args] = this.#argv
    const { descriptor } = socket
    const child = spawn(this.#file, args, {
      argv0,
      env: Object.fromEntries(variables),
      stdio: [descriptor, descriptor, 'inherit'],
    })
    const { pid } = child
    // Reports by an event why it could not be started.
    if (pid === undefined) throw (await once(child, 'error'))[0]
    child.on('error', () => {})
    const ended = new Promise<Ending>(resolve => {
      child.once('exit', (code, signal) => resolve(signal === null ? { code: code ?? 0 } : { signal }))
    })
    socket.close()
    return { pid, ended }
  }
}

const textOf = (text: string | Uint8Array): string => (typeof text === 'string' ? text : Buffer.from(text).toString())

function variableOf(variable: string | Uint8Array): [string, string] {
  const text = textOf(variable)
  const equals = text.indexOf('=')
  return equals < 0 ? [text, ''] : [text.slice(0, equals), text.slice(equals + 1)]
}

/** Of `NAME=value`. */
function nameOf(variable: string | Uint8Array): string {
  const text = typeof variable === 'string' ? variable : Buffer.from(variable).toString('latin1')
  const equals = text.indexOf('=')
  return equals < 0 ? text : text.slice(0, equals)
}
