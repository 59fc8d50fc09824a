import type { Engine, EngineName } from '../../src/sockets/engine.ts'
import { epollEngine } from '../../src/sockets/epoll-engine.ts'
import { nodeEngine } from '../../src/sockets/node-engine.ts'

/**
 * What carries connections; a test that is run over both proves a promise of the room and not of
 * one engine.
 */
export const BOTH_ENGINES: readonly { readonly name: string; readonly engine: Engine }[] = [
  { name: 'node', engine: nodeEngine },
  { name: 'epoll', engine: epollEngine },
]

/** Environment variable of a test run: the engine of every program of a Stack. */
export const ENGINE_VARIABLE = 'TEST_ENGINE'

/**
 * The engine of this run. Without ENGINE_VARIABLE the programs choose it themselves, which on this
 * host is `epoll`. The project `engine-node` of vitest.config.ts sets it, and so does SOAK_ENGINE
 * for the soaks.
 */
export const ENGINE_OF_RUN: EngineName = engineOf(process.env[ENGINE_VARIABLE] ?? 'epoll')

/** The settings of a Stack that ask for it. */
export const ENGINE_SETTINGS: { readonly engine?: EngineName } =
  process.env[ENGINE_VARIABLE] === undefined ? {} : { engine: ENGINE_OF_RUN }

function engineOf(text: string): EngineName {
  if (text === 'node' || text === 'epoll') return text
  throw new Error(`${ENGINE_VARIABLE}=${text}: the engines are node and epoll`)
}
