import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync } from 'node:fs'
import { dirname } from 'node:path'

const root = new URL('../..', import.meta.url).pathname

/**
 * Copies the files of this checkout into a directory, with the changes that are not committed yet.
 */
export function copyCheckout(directory: string): void {
  const words = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
  const files = execFileSync('git', words, { cwd: root, encoding: 'utf8' }).split('\0').filter(Boolean)
  for (const file of files) {
    mkdirSync(dirname(`${directory}/${file}`), { recursive: true })
    cpSync(`${root}${file}`, `${directory}/${file}`, { verbatimSymlinks: true })
  }
}

/** Copies the npm packages of this checkout into another one, without the cache of the tests. */
export function copyNodeModules(directory: string): void {
  const target = `${directory}/node_modules`
  mkdirSync(target)
  const names = readdirSync(`${root}node_modules`).filter(name => !['.cache', '.vite'].includes(name))
  const paths = names.map(name => `${root}node_modules/${name}`)
  // Hard links, if both are on one file system.
  if (spawnSync('cp', ['-al', ...paths, target]).status !== 0) execFileSync('cp', ['-a', ...paths, target])
}
