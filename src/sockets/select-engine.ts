import { endianness } from 'node:os'
import { messageOf, UsageFault } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { receiveDescriptor, sendDescriptor } from '../libc/descriptor-passing.ts'
import { Epoll, READABLE } from '../libc/epoll.ts'
import { openSocketPair } from '../libc/sockets.ts'
import type { Engine, EngineName } from './engine.ts'
import { epollEngine } from './epoll-engine.ts'
import { nodeEngine } from './node-engine.ts'
import { OwnedDescriptor } from './owned-descriptor.ts'

/** The value of a setting `engine`. */
export type EngineChoice = 'auto' | EngineName

/** Why this host, or this process, has no engine `epoll`; undefined: it has. */
export type EpollProbe = () => string | undefined

/**
 * The engine of this process, which is logged at level debug. `auto` is `epoll` where the host has
 * all that it needs, and otherwise `node`, which is logged once as a warning with the reason.
 * Throws UsageFault for `epoll` on a host that lacks something; `setting` is its name for the
 * administrator.
 */
export function selectEngine(choice: EngineChoice, setting: string, log: Log, probe: EpollProbe = epollLacks): Engine {
  const engine = engineFor(choice, setting, log, probe)
  log.debug('engine_used', { setting, engine: engine.name })
  return engine
}

function engineFor(choice: EngineChoice, setting: string, log: Log, probe: EpollProbe): Engine {
  if (choice === 'node') return nodeEngine
  const lack = probe()
  if (lack === undefined) return epollEngine
  if (choice === 'epoll')
    throw new UsageFault(`${setting}: this host has no engine "epoll": ${lack}: use "auto" or "node"`)
  log.warn('engine_selected', { setting, engine: 'node', reason: lack })
  return nodeEngine
}

/**
 * For a process whose children carry the connections: `auto` becomes `node` where the host has no
 * `epoll`, so that the reason is logged
 * once and not by every child. Throws as `selectEngine`.
 */
export function settledChoice(
  choice: EngineChoice,
  setting: string,
  log: Log,
  probe: EpollProbe = epollLacks,
): EngineChoice {
  return choice !== 'node' && engineFor(choice, setting, log, probe).name === 'node' ? 'node' : choice
}

/**
 * Tests everything that the engine needs and another host could lack. The native module may need
 * another C library, structures another processor, and the system calls a newer kernel or another
 * seccomp filter.
 */
export function epollLacks(): string | undefined {
  if (process.platform !== 'linux') return `the system is ${process.platform}, not Linux`
  if (!KNOWN.has(process.arch) || endianness() !== 'LE') return `the processor ${process.arch} is not known`
  try {
    return lacksIn(new Epoll())
  } catch (error) {
    return messageOf(error)
  }
}

/** Processors whose structures are laid out as src/libc writes them. */
const KNOWN: ReadonlySet<string> = new Set(['x64', 'arm64'])

/** Sends a descriptor through a pair of sockets and waits for it as the event loop does. */
function lacksIn(epoll: Epoll): string | undefined {
  const own = new OwnedDescriptor(epoll.descriptor)
  const [near, far] = openSocketPair().map(descriptor => new OwnedDescriptor(descriptor))
  if (near === undefined || far === undefined) throw new TypeError('a pair has two ends')
  try {
    epoll.add(far.descriptor, READABLE, 1)
    if (sendDescriptor(near.descriptor, near.descriptor, 'x') !== 1) return 'sendmsg does not send a descriptor'
    let isReady = false
    epoll.poll((tag, events) => {
      isReady = tag === 1 && (events & READABLE) !== 0
    })
    if (!isReady) return 'epoll_wait does not report a readable socket'
    const received = receiveDescriptor(far.descriptor)
    if (typeof received === 'number' || typeof received.descriptor !== 'number')
      return 'recvmsg does not receive a descriptor'
    new OwnedDescriptor(received.descriptor).close()
    epoll.remove(far.descriptor)
    return undefined
  } finally {
    for (const each of [near, far, own]) each.close()
  }
}
