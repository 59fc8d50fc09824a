import { type Dirent, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { messageOf } from '../../base/errors.ts'
import { UsageFault } from '../../base/exit-status.ts'
import type { Settings } from '../../settings/settings.ts'

/** Directories below a path that are entered: /home/USER/Maildir, /var/mail/DOMAIN/USER/Maildir and one more. */
const MAX_DEPTH = 5

/** The maildrops at and below the paths, one after the other. No symbolic link below a path is followed. */
export function* maildirsBelow(paths: readonly string[]): Generator<string> {
  for (const path of paths) {
    let found = false
    for (const maildir of below(resolve(path), 0)) {
      found = true
      yield maildir
    }
    if (!found) {
      throw new UsageFault(`${path}: no maildrop there: name a directory that holds new/ and cur/, or one above it`)
    }
  }
}

function* below(directory: string, depth: number): Generator<string> {
  if (isDirectory(join(directory, 'new')) && isDirectory(join(directory, 'cur'))) {
    yield directory
    return
  }
  if (depth >= MAX_DEPTH) return
  for (const entry of entriesOf(directory)) {
    if (entry.isDirectory() && !entry.name.startsWith('.')) yield* below(join(directory, entry.name), depth + 1)
  }
}

/**
 * The maildrops that the settings name by themselves: those of popup.passwd_file, or those of the
 * accounts in `accountsFile`
 * where the checker takes them. Only those that exist.
 * @throws UsageFault where the settings do not tell.
 */
export function maildirsOfSettings({ popup }: Settings, accountsFile = '/etc/passwd'): readonly string[] {
  const maildirs =
    popup.checker === 'passwd-file'
      ? linesOf(popup.passwd_file).map(([, , , , home = '', maildir = '']) => maildirOf(home, maildir || popup.maildir))
      : popup.checker === 'system' || popup.checker === 'checkpassword'
        ? linesOf(accountsFile).map(([, , , , , home = '']) => maildirOf(home, popup.maildir))
        : undefined
  if (maildirs === undefined) {
    throw new UsageFault(
      `popup.checker = "${popup.checker}" does not tell where the maildrops are: name directories: auth-relay check --maildirs /var/mail`,
    )
  }
  return [...new Set(maildirs)].filter(path => isDirectory(path))
}

/** As popup reads it: relative to the home. */
const maildirOf = (home: string, named: string): string => resolve(home, named.replace(/^~(?=\/|$)/, home))

function linesOf(file: string): readonly (readonly string[])[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageFault(`${file} cannot be read: ${messageOf(error)}: run as root, or name directories`, error)
  }
  return text.split('\n').flatMap(line => (line === '' || line.startsWith('#') ? [] : [line.split(':')]))
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false // missing, or closed to us
  }
}

function entriesOf(directory: string): readonly Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
  } catch {
    return [] // closed to us: there may be maildrops below that only root finds
  }
}
