import { existsSync, readdirSync, readFileSync } from 'node:fs'

/** A process and all its descendants. */
export function familyOf(pid: number): readonly number[] {
  const parents = new Map<number, number>()
  for (const entry of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    const parent = statOf(Number(entry))?.[1]
    if (parent !== undefined) parents.set(Number(entry), Number(parent))
  }
  const family = new Set([pid])
  for (let before = 0; before !== family.size; ) {
    before = family.size
    for (const [child, parent] of parents) if (family.has(parent)) family.add(child)
  }
  return [...family]
}

/**
 * Milliseconds of user and system time of a process, its descendants, and its descendants that have
 * ended (proc(5)).
 */
export const cpuOf = (pid: number): number => familyOf(pid).reduce((sum, member) => sum + ownCpuOf(member), 0)

/** As above, for the process and its descendants that have ended, without those that still run. */
export const ownCpuOf = (pid: number): number =>
  (statOf(pid)?.slice(11, 15) ?? []).reduce((sum, field) => sum + Number(field) * MS_PER_TICK, 0)

/**
 * Memory of a process and its descendants in KB: private memory and their share of shared memory
 * (PSS).
 */
export const memoryOf = (pid: number): number =>
  familyOf(pid).reduce((sum, member) => {
    const path = `/proc/${member}/smaps_rollup`
    return sum + (existsSync(path) ? Number(/^Pss:\s+(\d+)/m.exec(readFileSync(path, 'latin1'))?.[1] ?? '0') : 0)
  }, 0)

/** USER_HZ is 100 on every Linux that Node runs on. */
const MS_PER_TICK = 10

/** The fields of /proc/PID/stat from the state on; undefined if the process has ended. */
function statOf(pid: number): readonly string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ')
  } catch {
    return undefined // the process has ended
  }
}
