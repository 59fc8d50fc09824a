import type { Engine } from '../../src/sockets/engine.ts'
import { epollEngine } from '../../src/sockets/epoll-engine.ts'
import { nodeEngine } from '../../src/sockets/node-engine.ts'

/** What carries connections; a test that is run over both proves a promise of the room and not of one engine. */
export const BOTH_ENGINES: readonly { readonly name: string; readonly engine: Engine }[] = [
  { name: 'node', engine: nodeEngine },
  { name: 'epoll', engine: epollEngine },
]
