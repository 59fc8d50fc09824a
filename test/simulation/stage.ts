import type { connect, createServer, Socket } from 'node:net'
import type { SimulatedSocket, SimulatedSockets } from './simulated-sockets.ts'

/**
 * Replacements for node:net while a simulation runs. `handle`: the handle of a real Unix socket,
 * because services read the account of their peer from the kernel. `directory`: for the small files
 * of authd.
 */
export type Stage = { sockets: SimulatedSockets | undefined; handle: unknown; directory: string }

type Net = { readonly connect: typeof connect; readonly createServer: typeof createServer }

/**
 * The module node:net with the stage's sockets, for vi.mock. Without a simulation it has the real
 * ones.
 */
export function simulatedNet<Original extends Net>(original: Original, stage: Stage): Record<string, unknown> {
  return {
    ...original,
    connect: (...given: [{ readonly path: string }]): Socket | SimulatedSocket =>
      stage.sockets?.connect(...given) ?? original.connect(...given),
    createServer: (...given: [{ allowHalfOpen?: boolean }, (socket: Socket | SimulatedSocket) => void]) =>
      stage.sockets?.createServer(...given) ?? original.createServer(...given),
  }
}
