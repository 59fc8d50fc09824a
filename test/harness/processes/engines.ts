import type { Engine, EngineName } from '../../../src/sockets/engine.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { nodeEngine } from '../../../src/sockets/node-engine.ts'

/**
 * The engines of connections. A test that runs with both shows that a property does not depend on
 * the engine.
 */
export const BOTH_ENGINES: readonly { readonly name: string; readonly engine: Engine }[] = [
  { name: 'node', engine: nodeEngine },
  { name: 'epoll', engine: epollEngine },
]

/** Environment variable of a test run: the engine for every program of a Stack. */
export const ENGINE_VARIABLE = 'TEST_ENGINE'

/**
 * The engine of this run. Without ENGINE_VARIABLE the programs choose the engine, which on this
 * host is `epoll`. The project `engine-node` of vitest.config.ts sets the variable, and so does
 * SOAK_ENGINE for the soak tests.
 */
export const ENGINE_OF_RUN: EngineName = engineOf(process.env[ENGINE_VARIABLE] ?? 'epoll')

/** The settings of a Stack that select this engine. */
export const ENGINE_SETTINGS: { readonly engine?: EngineName } =
  process.env[ENGINE_VARIABLE] === undefined ? {} : { engine: ENGINE_OF_RUN }

function engineOf(text: string): EngineName {
  if (text === 'node' || text === 'epoll') return text
  throw new Error(`${ENGINE_VARIABLE}=${text}: the engines are node and epoll`)
}
