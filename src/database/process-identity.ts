import { readFile } from 'node:fs/promises'

/**
 * A process, told apart from a later one with the same number by its start time (proc(5), field 22
 * of stat, in clock ticks).
 */
export type ProcessIdentity = { readonly pid: number; readonly start: string }

/** Who has this process number now; undefined if nobody. A zombie is nobody. */
export async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined)
  // The second field is the program's name in parentheses and may hold anything, parentheses included.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  const start = fields?.[19]
  return start === undefined || fields?.[0] === 'Z' ? undefined : { pid, start }
}

/** `PID START`, as written into a file. */
export const formatIdentity = ({ pid, start }: ProcessIdentity): string => `${pid} ${start}\n`

/** True if the process that wrote this text is still there. */
export async function isAlive(text: string): Promise<boolean> {
  const [pid = '', start = ''] = text.trim().split(' ')
  return /^\d+$/.test(pid) && (await identityOf(Number(pid)))?.start === start
}
