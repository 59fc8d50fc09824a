import { accessSync, constants } from 'node:fs'

/** True if this process may read the file or the directory. */
export function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}
