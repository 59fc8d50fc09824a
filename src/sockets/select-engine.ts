/** The choice of an engine, by the settings and by a test of the host. */
import { endianness } from 'node:os'
import { messageOf, UsageFault } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { receiveDescriptor, sendDescriptor } from '../libc/descriptor-passing.ts'
import { Epoll, READABLE } from '../libc/epoll.ts'
import { openSocketPair, receiveInto, sendFrom } from '../libc/sockets.ts'
import type { Engine, EngineName } from './engine.ts'
import { epollEngine } from './epoll-engine.ts'
import { nodeEngine } from './node-engine.ts'
import { OwnedDescriptor } from './owned-descriptor.ts'

/** The value of a setting `engine`. */
export type EngineChoice = 'auto' | EngineName

/** Returns why the engine `epoll` does not work in this process; undefined if it does. */
export type EpollProbe = () => string | undefined

/**
 * Chooses the engine of this process and logs it at level debug. `auto` is `epoll` if that works,
 * otherwise `node`, with a warning that contains the reason. `setting` is the name of the setting,
 * for messages. Throws UsageFault if the choice is `epoll` and that does not work.
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
 * For a process whose children carry the connections: `auto` becomes `node` if `epoll` does not
 * work, so that this process logs the reason once, instead of each child. Throws like
 * `selectEngine`.
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
 * Tests all parts of the host that `epoll` needs. The native module may not fit the C library, and
 * the layout of structures may not fit the processor. The kernel may be too old, and a seccomp
 * filter may forbid a system call.
 */
export function epollLacks(): string | undefined {
  if (process.platform !== 'linux') return `the system is ${process.platform}, not Linux`
  if (!KNOWN.has(process.arch) || endianness() !== 'LE') return `the processor ${process.arch} is not known`
  const opened: OwnedDescriptor[] = []
  try {
    return firstLack(descriptor => {
      const own = new OwnedDescriptor(descriptor)
      opened.push(own)
      return own.descriptor
    })
  } catch (error) {
    return messageOf(error)
  } finally {
    for (const each of opened) each.close()
  }
}

/** Processors with the layout of structures that src/libc writes. */
const KNOWN: ReadonlySet<string> = new Set(['x64', 'arm64'])

/**
 * Sends an octet and a descriptor through a socket pair, and waits for the socket like the event
 * loop. `own` gets each descriptor as soon as it is open, to close it after the test.
 */
function firstLack(own: (descriptor: number) => number): string | undefined {
  const epoll = new Epoll()
  own(epoll.descriptor)
  const [near, far] = openSocketPair()
  own(near)
  own(far)
  epoll.add(far, READABLE, 1)
  if (sendDescriptor(near, near, 'x') !== 1) return 'sendmsg does not send a descriptor'
  let isReady = false
  epoll.poll((tag, events) => {
    isReady = tag === 1 && (events & READABLE) !== 0
  })
  if (!isReady) return 'epoll_wait does not report a readable socket'
  const received = receiveDescriptor(far)
  if (typeof received === 'number' || typeof received.descriptor !== 'number')
    return 'recvmsg does not receive a descriptor'
  own(received.descriptor)
  epoll.remove(far)
  const octet = Buffer.from('x')
  if (sendFrom(far, octet, 1) !== 1) return 'send does not send an octet'
  if (receiveInto(near, octet) !== 1) return 'recv does not receive an octet'
  return undefined
}
