import { ENGINES, type EngineName } from '../src/sockets/engine.ts'

/**
 * Reads `--engine epoll,node`: the engine of auth-relay, then the engine of the second side. Throws
 * Error.
 */
export function enginePair(text: string): readonly [EngineName, EngineName] {
  const [ours, other, ...more] = text.split(',').map(name => ENGINES.find(engine => engine === name))
  if (ours === undefined || other === undefined || more.length > 0)
    throw new Error(`--engine ${text}: name two engines, as in --engine epoll,node`)
  return [ours, other]
}
