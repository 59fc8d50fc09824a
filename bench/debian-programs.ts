import { spawnSync } from 'node:child_process'

/** The version of an installed Debian package; undefined if it is not installed. */
export function installedVersion(name: string): string | undefined {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: placeholders of dpkg-query
  const { stdout } = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status} ${Version}', name], { encoding: 'utf8' })
  const [status, version] = (stdout ?? '').split(' ')
  return status === 'installed' ? version : undefined
}

/**
 * The version that apt-get would fetch, which is what is unpacked; undefined without Debian's
 * package lists.
 */
export function candidateVersion(name: string): string | undefined {
  const { stdout } = spawnSync('apt-cache', ['show', '--no-all-versions', name], { encoding: 'utf8' })
  return /^Version: (.*)$/m.exec(stdout ?? '')?.[1]
}

/** Something of Debian's that a bench may be run beside. */
export type DebianProgram = { readonly debianPackage: string; readonly installed: boolean }

/**
 * Its version, or undefined if it cannot be run here: not installed, or not to be unpacked without
 * root.
 */
export const versionHere = ({ debianPackage, installed }: DebianProgram): string | undefined => {
  if (installed) return installedVersion(debianPackage)
  return process.geteuid?.() === 0 ? candidateVersion(debianPackage) : undefined
}
