import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { accountNamed, groupNamed } from '../../libc/accounts.ts'
import { type Ids, isRoot } from '../../process/privileges.ts'

/** An account with the groups that a program of ours has beside its own. */
export type ProgramAccount = { readonly name: string; readonly ids: Ids; readonly groups: readonly number[] }

/** What systemd says of a unit; undefined: it knows no such unit, or there is no systemd. */
export type UnitFacts = { readonly user: string; readonly groups: readonly number[]; readonly procSubset: string }

/**
 * True if the account may do this to the path: `r` read it, `w` write to it, `x` search it. The
 * kernel is asked under the ids of
 * the account, so that ACLs and directories above the path count.
 */
export function mayAccount({ ids, groups }: ProgramAccount, right: 'r' | 'w' | 'x', path: string): boolean {
  const words = ['test', `-${right}`, path]
  const list = groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`
  const prefix = isRoot() ? ['setpriv', `--reuid=${ids.uid}`, `--regid=${ids.gid}`, list, '--'] : []
  const [program = 'test', ...rest] = [...prefix, ...words]
  return spawnSync(program, rest, { cwd: '/' }).status === 0
}

/** The ids and groups that a process has. */
export function accountOfProcess(pid: number, name: string): ProgramAccount | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const numbers = (field: string): readonly number[] =>
      (new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '').split(/\s+/).filter(Boolean).map(Number)
    // The second number is the effective id (proc_pid_status(5)).
    const [, uid = 0] = numbers('Uid')
    const [, gid = 0] = numbers('Gid')
    return { name, ids: { uid, gid }, groups: numbers('Groups') }
  } catch {
    return undefined // ended meanwhile
  }
}

/** The account of a unit with its groups, as systemd starts it. */
export const accountOfUnit = ({ user, groups }: UnitFacts): ProgramAccount | undefined =>
  accountWithGroups(user, groups)

/** An account with the groups that the host's database gives it, and with others. */
export function accountWithGroups(name: string, others: readonly number[] = []): ProgramAccount | undefined {
  const account = accountNamed(name)
  if (account === undefined) return undefined
  const { stdout } = spawnSync('id', ['-G', name], { encoding: 'utf8' })
  const own = (stdout ?? '').trim().split(/\s+/).filter(Boolean).map(Number)
  return { name, ids: { uid: account.uid, gid: account.gid }, groups: [...new Set([...own, ...others])] }
}

/** What systemd says of a unit with its drop-ins. */
export function unitFacts(unit: string): UnitFacts | undefined {
  const words = ['show', '--property=LoadState,User,SupplementaryGroups,ProcSubset', unit]
  const { stdout } = spawnSync('systemctl', words, { encoding: 'utf8', timeout: 5000 })
  const facts = new Map(
    (stdout ?? '').split('\n').map((line): [string, string] => {
      const [name = '', ...value] = line.split('=')
      return [name, value.join('=')]
    }),
  )
  if (facts.get('LoadState') !== 'loaded') return undefined
  const names = (facts.get('SupplementaryGroups') ?? '').split(' ').filter(Boolean)
  const groups = names.flatMap(name => (/^\d+$/.test(name) ? Number(name) : (groupNamed(name) ?? [])))
  return { user: facts.get('User') ?? '', groups, procSubset: facts.get('ProcSubset') ?? '' }
}
