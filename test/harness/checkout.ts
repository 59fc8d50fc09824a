import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync } from 'node:fs'
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
