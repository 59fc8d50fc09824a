/** Programs that run with a connection as descriptors 0 and 1, as under inetd and tcpserver. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type Ending, RepeatedSpawn, reapChildren, waitFor } from '../libc/child-process.ts'

/** A started child. `ended` is undefined if the exit status cannot be known. */
export type InetdChild = { readonly pid: number; readonly ended: Promise<Ending | undefined> }

/** A connection for a program. `close` closes this process's descriptor. */
export type ConnectionSocket = { readonly descriptor: number; close(): void }

/** Runs one program many times, each time on another connection. */
export type ConnectionProgram = {
  /**
   * Runs the program on a connection and closes this process's descriptor. The child gets a
   * blocking socket, because programs written for inetd do not handle EAGAIN. The child gets the
   * variables of every child, except those named in `without`, and `environment` (`NAME=value`).
   * Rejects if the program cannot be run; the socket is then still open here.
   */
  run(
    socket: ConnectionSocket,
    environment: readonly (string | Uint8Array)[],
    without?: readonly string[],
  ): Promise<InetdChild>
}

/** Runs a program by posix_spawn(3). The connection must be blocking. */
export class InetdProgram implements ConnectionProgram {
  readonly #file: string
  readonly #argv: readonly (string | Uint8Array)[]
  readonly #environment: readonly (string | Uint8Array)[]
  readonly #spawn: RepeatedSpawn

  /** `environment`: `NAME=value` strings of every child. */
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
   * Starts the program on this thread and waits for its execve. Returns the pid, which
   * `reapStarted` reaps. `block` has strings that each end with NUL: `without` names of variables
   * that this child does not get, then its `NAME=value` strings. The caller still owns the
   * descriptor. Throws SystemCallError.
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
   * Reaps ended children of `startHere`. Call it at SIGCHLD, in a process without other children.
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
 * Runs a program through the runtime's own function, for connections that are streams of the
 * runtime. The child starts in the same loop turn, before the event loop can read from the
 * connection. The runtime makes the child's descriptors blocking.
 */
export class SpawnedProgram implements ConnectionProgram {
  readonly #file: string
  readonly #argv: readonly string[]
  readonly #environment: ReadonlyMap<string, string>

  /** Arguments as for InetdProgram. The runtime passes texts in UTF-8. */
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
    // The event `error` carries the reason why the program could not be started.
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

/** Returns the name of a `NAME=value` string. */
function nameOf(variable: string | Uint8Array): string {
  const text = typeof variable === 'string' ? variable : Buffer.from(variable).toString('latin1')
  const equals = text.indexOf('=')
  return equals < 0 ? text : text.slice(0, equals)
}
