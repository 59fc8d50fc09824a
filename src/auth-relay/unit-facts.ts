import { spawnSync } from 'node:child_process'
import { groupNamed } from '../libc/account.ts'
import type { UnitFacts } from './account-rights.ts'

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
