import { checked, nativeFunction } from './native-function.ts'

const getrlimit = nativeFunction('int getrlimit(int resource, void *limit)')
const setrlimit = nativeFunction('int setrlimit(int resource, const void *limit)')
const RLIMIT_NOFILE = 7

/** RLIMIT_NOFILE of this process; 2^64-1 is "no limit". */
export function openFilesLimit(): { soft: bigint; hard: bigint } {
  const limit = Buffer.alloc(16)
  checked('getrlimit', getrlimit(RLIMIT_NOFILE, limit))
  return { soft: limit.readBigUInt64LE(0), hard: limit.readBigUInt64LE(8) }
}

/**
 * Sets the soft limit, at most to the hard one. The runtime raises it to the hard limit at start; programs that close every possible
 * descriptor, or use select(2), must not inherit that.
 */
export function setOpenFilesLimit(soft: bigint): void {
  const { hard } = openFilesLimit()
  const limit = Buffer.alloc(16)
  limit.writeBigUInt64LE(soft < hard ? soft : hard, 0)
  limit.writeBigUInt64LE(hard, 8)
  checked('setrlimit', setrlimit(RLIMIT_NOFILE, limit))
}
