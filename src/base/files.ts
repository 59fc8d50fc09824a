/** Files: replacing one in one step, and the right to read one. */
import { accessSync, constants, renameSync, unlinkSync, writeFileSync } from 'node:fs'

/**
 * Replaces a file in one step: a crash leaves the old file or the new one. Throws and leaves the
 * old file and no temporary one if the directory cannot be written or the disk is full.
 */
export function replaceFile(path: string, content: string | Uint8Array, mode: number): void {
  const temporary = `${path}.tmp.${process.pid}`
  try {
    writeFileSync(temporary, content, { mode })
    renameSync(temporary, path)
  } catch (error) {
    try {
      unlinkSync(temporary)
    } catch {
      // The temporary file was not created.
    }
    throw error
  }
}

/** True if this process may read the file or the directory. */
export function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}
