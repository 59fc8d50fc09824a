import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, fchownSync, openSync, renameSync, writeSync } from 'node:fs'

/** A random secret of 192 bits, as 32 characters that need no quoting in TOML, SQL or a shell. */
export const randomSecret = (): string => randomBytes(24).toString('base64url')

/**
 * Makes sure that a file with a secret exists: one line, mode 0600, written whole or not at all. An
 * old one is kept.
 */
export function ensureSecretFile(path: string, owner?: { readonly uid: number; readonly gid: number }): void {
  if (existsSync(path)) return
  writePrivateFile(path, `${randomSecret()}\n`, owner)
}

/** Writes a file of mode 0600 in one step: readers see the old text or the new one, and a crash leaves no half. */
export function writePrivateFile(
  path: string,
  text: string,
  owner?: { readonly uid: number; readonly gid: number },
): void {
  const temporary = `${path}.${process.pid}.tmp`
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    if (owner !== undefined) fchownSync(fd, owner.uid, owner.gid)
    writeSync(fd, text)
  } finally {
    closeSync(fd)
  }
  renameSync(temporary, path)
}
