import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { changesOf } from '../debian/changelog.ts'

/** Subject of the commit that contains the changes of `prepareRelease`. */
export const releaseSubject = (version: string): string => `release: prepare version ${version}`

/**
 * Moves the pending changes to a version, in package.json, package-lock.json and CHANGELOG.md,
 * without a commit. @throws Error if the version is invalid or no change is pending.
 */
export function prepareRelease(root: string, version: string, date: Date): void {
  if (!/^\d+\.\d+\.\d+$/.test(version)) throw new Error(`${version} is not a version of a release: write it as 1.2.3`)
  const path = join(root, 'CHANGELOG.md')
  const changelog = readFileSync(path, 'utf8')
  if (changesOf(changelog, 'Pending').length === 0) {
    throw new Error('CHANGELOG.md: nothing is pending: write the changes below "## Pending"')
  }
  const day = date.toISOString().slice(0, 10)
  writeFileSync(path, changelog.replace(/^## Pending$/m, `## Pending\n\n## ${version} (${day})`))
  for (const file of ['package.json', 'package-lock.json']) {
    const text = readFileSync(join(root, file), 'utf8')
    // The first match is the package's own version; the lock repeats it once for the package at the
    // root.
    const own = /^( {2}| {6})"version": "[^"]*"/gm
    let left = file === 'package.json' ? 1 : 2
    const changed = text.replace(own, (line, indent: string) =>
      left-- > 0 ? `${indent}"version": "${version}"` : line,
    )
    writeFileSync(join(root, file), changed)
  }
}
