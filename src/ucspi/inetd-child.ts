import { closeSync } from 'node:fs'
import { RepeatedSpawn } from '../libc/posix-spawn.ts'
import { type Ending, waitFor } from '../libc/wait.ts'

export type InetdChild = { readonly pid: number; readonly ended: Promise<Ending> }

/** A program that runs with a connection as its descriptors 0 and 1, as inetd and tcpserver run theirs. */
export class InetdProgram {
  readonly #spawn: RepeatedSpawn

  /** `environment`: `NAME=value`, each; what every child has. */
  constructor(file: string, argv: readonly string[], environment: readonly (string | Uint8Array)[]) {
    this.#spawn = new RepeatedSpawn(file, argv, environment)
  }

  /**
   * Runs it on a connection and closes our end of that, which must be blocking: a child written for that would not understand EAGAIN.
   * `environment` follows what every child has. Rejects with SystemCallError; the descriptor is then still ours.
   */
  async run(descriptor: number, environment: readonly (string | Uint8Array)[]): Promise<InetdChild> {
    const pid = await this.#spawn.start(descriptor, environment)
    const ended = waitFor(pid)
    closeSync(descriptor)
    return { pid, ended }
  }
}
