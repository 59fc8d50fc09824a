import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { inject } from 'vitest'

/**
 * Copies the migrated cluster of this test run into a state directory that has none. After that,
 * `auth-relay up` starts as at its second start. `initdb` takes two seconds of processor time.
 */
export function giveCluster(stateDir: string): void {
  const target = `${stateDir}/postgresql`
  if (existsSync(target)) return
  copyCluster(inject('postgres').cluster, target)
}

/** Copies the data and links the program files, which no program changes. */
export function copyCluster(from: string, to: string): void {
  mkdirSync(to, { recursive: true })
  chmodSync(to, 0o755)
  copyTree(`${from}/data`, `${to}/data`)
  cpSync(`${from}/superuser.secret`, `${to}/superuser.secret`, { preserveTimestamps: true })
  for (const name of readdirSync(from).filter(name => name.startsWith('program-')))
    copyTree(`${from}/${name}`, `${to}/${name}`, '--link')
}

/** Copies a directory with the owners and modes of its files. */
export function copyTree(from: string, to: string, ...options: readonly string[]): void {
  const { status, stderr } = spawnSync('cp', ['-a', ...options, from, to], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`cp -a ${from} ${to}: ${stderr}`)
}
