import { statSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * True if every account of the host can pass through this directory (or run this program) and
 * through all directories above it.
 */
export function isOpenToOthers(path: string): boolean {
  if ((statSync(path).mode & 0o001) === 0) return false
  return path === '/' || isOpenToOthers(dirname(path))
}
