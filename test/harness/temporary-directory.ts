import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'

/**
 * An empty directory that other accounts may enter; call `remove` when done. Its path is short,
 * because paths of Unix sockets end at 107 octets. `parent`: a directory that exists.
 */
export function temporaryDirectory(parent = tmpdir()): { readonly path: string; remove(): void } {
  const path = mkdtempSync(`${parent}/ar-`)
  chmodSync(path, 0o755)
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}
