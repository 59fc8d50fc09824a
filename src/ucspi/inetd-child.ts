import type { Socket } from 'node:net'
import { setBlocking } from '../libc/blocking.ts'
import { descriptorOf } from '../libc/descriptor.ts'
import { posixSpawnAside } from '../libc/posix-spawn.ts'
import { type Ending, waitFor } from '../libc/wait.ts'

export type InetdChild = { readonly pid: number; readonly ended: Promise<Ending> }

/**
 * Runs a program with a connection as its descriptors 0 and 1, as inetd and tcpserver do, and closes our end of it. The socket must come from a
 * server with `pauseOnConnect` and must never have been read from. `environment`: `NAME=value`, each. Rejects with SystemCallError; the socket is then still ours.
 */
export async function runOnConnection(
  socket: Socket,
  file: string,
  argv: readonly string[],
  environment: readonly (string | Uint8Array)[],
): Promise<InetdChild> {
  const descriptor = descriptorOf(socket)
  // The flag is the connection's, not the descriptor's: a child written for a blocking socket would see EAGAIN.
  setBlocking(descriptor, true)
  const pid = await posixSpawnAside({
    file,
    argv,
    environment,
    descriptors: [
      { from: descriptor, to: 0 },
      { from: descriptor, to: 1 },
    ],
  })
  const ended = waitFor(pid)
  socket.destroy()
  return { pid, ended }
}
