import type { connect, createServer, Socket } from 'node:net'
import type { SimulatedSocket, SimulatedSockets } from './simulated-sockets.ts'

/**
 * What stands in the place of node:net while a simulation runs. `handle`: the handle of a real Unix
 * socket, because services
 * ask the kernel for the account of their peer. `directory`: for the few small files of authd.
 */
export type Stage = { sockets: SimulatedSockets | undefined; handle: unknown; directory: string }

type Net = { readonly connect: typeof connect; readonly createServer: typeof createServer }

/**
 * The module node:net with sockets of the stage, for vi.mock. Without a simulation the real ones
 * are used.
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
