import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Status of a process in the kernel (proc(5)). */
export type ProcessStatus = {
  readonly pid: number
  readonly parent: number
  readonly commandLine: readonly string[]
  /** Real, effective, saved and file-system id. */
  readonly uids: readonly number[]
  readonly gids: readonly number[]
  readonly groups: readonly number[]
  /** Effective, permitted, inheritable and ambient capabilities together. */
  readonly capabilities: bigint
  readonly noNewPrivileges: boolean
}

/** One process; undefined if it has ended. */
export function statusOf(pid: number): ProcessStatus | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const field = (name: string): string => new RegExp(`^${name}:[ \t]*(.*)$`, 'm').exec(status)?.[1]?.trim() ?? ''
    const numbers = (name: string): number[] => field(name).split(/\s+/).filter(Boolean).map(Number)
    const capabilities = ['CapEff', 'CapPrm', 'CapInh', 'CapAmb'].map(name => BigInt(`0x${field(name)}`))
    return {
      pid,
      parent: Number(field('PPid')),
      commandLine: readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1),
      uids: numbers('Uid'),
      gids: numbers('Gid'),
      groups: numbers('Groups'),
      capabilities: capabilities.reduce((all, some) => all | some, 0n),
      noNewPrivileges: field('NoNewPrivs') === '1',
    }
  } catch {
    return undefined // the process has ended meanwhile
  }
}

/** A process and all its descendants. */
export function descendantsOf(pid: number): readonly ProcessStatus[] {
  const all = readdirSync('/proc')
    .filter(entry => /^\d+$/.test(entry))
    .map(entry => statusOf(Number(entry)))
    .filter(status => status !== undefined)
  const found = all.filter(status => status.pid === pid)
  for (const known of found) found.push(...all.filter(status => status.parent === known.pid))
  return found
}

/** An Internet socket that a process has open. */
export type OpenSocket = { readonly state: 'listening' | 'connected' | 'other'; readonly local: string }

const STATES: Readonly<Record<string, OpenSocket['state']>> = { '0A': 'listening', '01': 'connected' }

/**
 * The Internet sockets of a process in the network namespace of this test; `local` is hexadecimal
 * address:port as in proc(5).
 */
export function internetSocketsOf(pid: number): readonly OpenSocket[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).map(fd => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
      } catch {
        return undefined // the socket was closed meanwhile
      }
    }),
  )
  return ['tcp', 'tcp6', 'udp', 'udp6', 'raw', 'raw6'].flatMap(table =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .slice(1)
      .map(line => line.trim().split(/\s+/))
      .filter(([, , , , , , , , , inode]) => inode !== undefined && inodes.has(inode))
      .map(words => ({ state: STATES[words[3] ?? ''] ?? 'other', local: words[1] ?? '' }) as const),
  )
}

/** Resources of a process and its descendants. */
export type Resources = {
  /** Private memory and its share of shared memory (Pss), in octets. */
  readonly memory: number
  readonly descriptors: number
  readonly processes: number
}

/**
 * Sums over the running processes. The CPU time of a parent includes its children that have ended.
 */
export function resourcesOf(pid: number): Resources {
  let [memory, descriptors, processes] = [0, 0, 0]
  for (const { pid: each } of descendantsOf(pid)) {
    try {
      const pss = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${each}/smaps_rollup`, 'utf8'))?.[1]
      descriptors += readdirSync(`/proc/${each}/fd`).length
      memory += Number(pss ?? 0) * 1024
      processes += 1
    } catch {
      // The process has ended meanwhile.
    }
  }
  return { memory, descriptors, processes }
}
