import type { Socket } from 'node:net'
import { setBlocking } from '../libc/blocking.ts'
import { descriptorOf } from '../libc/descriptor.ts'
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
   * Runs it on a connection and closes our end of that. The socket must come from a server with `pauseOnConnect` and must never have been read
   * from. `environment` follows what every child has. Rejects with SystemCallError; the socket is then still ours.
   */
  async run(socket: Socket, environment: readonly (string | Uint8Array)[]): Promise<InetdChild> {
    const descriptor = descriptorOf(socket)
    // The flag is the connection's, not the descriptor's: a child written for a blocking socket would see EAGAIN.
    setBlocking(descriptor, true)
    const pid = await this.#spawn.start(descriptor, environment)
    const ended = waitFor(pid)
    socket.destroy()
    return { pid, ended }
  }
}
