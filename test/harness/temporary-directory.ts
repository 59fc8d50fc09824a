import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'

/**
 * An empty directory of its own that other accounts may enter; `remove` when done. Short: Unix
 * socket paths end at 107 octets.
 */
export function temporaryDirectory(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(`${tmpdir()}/ar-`)
  chmodSync(path, 0o755)
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}
