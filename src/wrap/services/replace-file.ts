import {
  closeSync,
  constants,
  ftruncateSync,
  openSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'

/**
 * Replaces a file in one step. Throws, and leaves the file as it was, if its directory cannot be
 * written or the disk is full.
 */
export function replaceFile(path: string, content: Uint8Array): void {
  const temporary = `${path}.tmp.${process.pid}`
  try {
    writeFileSync(temporary, content, { mode: 0o644 })
    renameSync(temporary, path)
  } catch (error) {
    try {
      unlinkSync(temporary)
    } catch {
      // It was never made.
    }
    throw error
  }
}

/**
 * Writes over a file where it stands, for a directory that cannot be written. A reader that has it
 * open at this moment may find neither the old content nor the new one. Throws if the file is
 * missing or may not be written.
 */
export function overwriteFile(path: string, content: Uint8Array): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    for (let at = 0; at < content.length; ) at += writeSync(fd, content, at, content.length - at, at)
    ftruncateSync(fd, content.length)
  } finally {
    closeSync(fd)
  }
}
