import { spawnSync } from 'node:child_process'

/** The version of an installed Debian package; undefined if it is not installed. */
export function installedVersion(name: string): string | undefined {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: placeholders of dpkg-query
  const { stdout } = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status} ${Version}', name], { encoding: 'utf8' })
  const [status, version] = (stdout ?? '').split(' ')
  return status === 'installed' ? version : undefined
}

/** The version that apt-get would fetch and unpack; undefined without Debian's package lists. */
export function candidateVersion(name: string): string | undefined {
  const { stdout } = spawnSync('apt-cache', ['show', '--no-all-versions', name], { encoding: 'utf8' })
  return /^Version: (.*)$/m.exec(stdout ?? '')?.[1]
}

/** A program of Debian that a bench can compare with. */
export type DebianProgram = { readonly debianPackage: string; readonly installed: boolean }

/**
 * Its version; undefined if the program is not installed, and cannot be unpacked because the bench
 * does not run as root.
 */
export const versionHere = ({ debianPackage, installed }: DebianProgram): string | undefined => {
  if (installed) return installedVersion(debianPackage)
  return process.geteuid?.() === 0 ? candidateVersion(debianPackage) : undefined
}
