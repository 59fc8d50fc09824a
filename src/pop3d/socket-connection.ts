import type { Socket } from 'node:net'
import type { Connection } from './session.ts'

/** A session's connection over one socket. */
export const connectionOver = (socket: Socket): Connection => ({
  input: socket,
  output: socket,
  onIdle: (milliseconds, idle) => socket.setTimeout(milliseconds, idle),
  destroy: () => socket.destroy(),
})
