import { closeSync, openSync } from 'node:fs'
import { errorCodeOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'

const LOOK_EVERY_MS = 1000

/**
 * Logs when this process has no descriptor left, and when it has one again; looked for once a second. The runtime says
 * nothing of it: it takes the next client on a descriptor held in reserve and closes it at once.
 */
export function watchDescriptors(log: Log, hasOne: () => boolean = hasDescriptor): { stop(): void } {
  let had = true
  const timer = setInterval(() => {
    const has = hasOne()
    if (has === had) return
    had = has
    if (has) log.info('descriptors_freed')
    else
      log.error('descriptors_exhausted', {
        reason: 'new clients are turned away',
        remedy: 'raise LimitNOFILE (ulimit -n), or lower max_connections',
      })
  }, LOOK_EVERY_MS).unref()
  return { stop: () => clearInterval(timer) }
}

function hasDescriptor(): boolean {
  try {
    closeSync(openSync('/dev/null', 'r'))
    return true
  } catch (error) {
    // ENFILE: the whole host has none. What else may fail says nothing of descriptors.
    return !['EMFILE', 'ENFILE'].includes(errorCodeOf(error) ?? '')
  }
}
