import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { SETTINGS_FILE } from '../../settings/settings.ts'
import { describeProcess, ourProgram } from '../check/socket-holders.ts'

/** A program of ours that runs with these settings. */
export type RunningProgram = {
  readonly name: string
  readonly pid: number
  readonly since: Date
  /** The systemd unit that the program belongs to, `auth-relay up`, or `by hand`. */
  readonly startedBy: string
}

const DAEMONS: ReadonlySet<string> = new Set(['authd', 'popup', 'sslwrap', 'wrap', 'status-page'])
/** Clock ticks of /proc/PID/stat in a second: USER_HZ, which is 100 on every Linux of today. */
const TICKS = 100

/**
 * The daemons that run with this settings file; their workers are left out. `script` is a program
 * of the same installation.
 */
export function runningPrograms(config: string, script: string): readonly RunningProgram[] {
  return readdirSync('/proc').flatMap((entry): RunningProgram[] => {
    const holder = /^\d+$/.test(entry) ? describeProcess(Number(entry)) : undefined
    const name = holder === undefined ? undefined : ourProgram(holder, script)
    if (holder === undefined || name === undefined || !DAEMONS.has(name) || configOf(holder.words) !== config) return []
    const facts = statOf(holder.pid)
    if (facts === undefined) return []
    const parent = describeProcess(facts.parent)
    const parentName = parent === undefined ? undefined : ourProgram(parent, script)
    if (parentName === name) return []
    const startedBy = parentName === 'up' ? 'auth-relay up' : (unitOf(holder.pid) ?? 'by hand')
    return [{ name, pid: holder.pid, since: facts.since, startedBy }]
  })
}

function configOf(words: readonly string[]): string {
  const at = words.indexOf('--config')
  return at < 0 ? SETTINGS_FILE : resolve(words[at + 1] ?? '')
}

/** Parent and start of a process (proc_pid_stat(5)); its name, in parentheses, can hold anything. */
function statOf(pid: number): { readonly parent: number; readonly since: Date } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const booted = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1])
    return { parent: Number(fields[1]), since: new Date((booted + Number(fields[19]) / TICKS) * 1000) }
  } catch {
    return undefined // ended meanwhile
  }
}

function unitOf(pid: number): string | undefined {
  try {
    return /\/(auth-relay-[a-z-]+\.service)/.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1]
  } catch {
    return undefined // ended meanwhile
  }
}
