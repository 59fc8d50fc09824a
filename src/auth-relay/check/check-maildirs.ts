/** Finds maildrops, and checks that pop3d can serve them. */

import { type Dirent, lstatSync, opendirSync, readdirSync, readFileSync, type Stats, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { messageOf, UsageFault } from '../../base/errors.ts'
import { isReadable } from '../../base/files.ts'
import type { Settings } from '../../settings/settings.ts'
import { baseNameOf, isUniqueId } from '../../wire/message-name.ts'
import { remedyForMissing } from '../maildrop.ts'
import { count } from '../text/terminal.ts'
import { advice, type Finding, unsafe } from './finding.ts'

/**
 * Directories below a path that are entered: /home/USER/Maildir, /var/mail/DOMAIN/USER/Maildir and
 * one more.
 */
const MAX_DEPTH = 5

/**
 * The maildrops at and below the paths, one after the other. No symbolic link below a path is
 * followed.
 */
export function* maildirsBelow(paths: readonly string[]): Generator<string> {
  for (const path of paths) {
    let found = false
    for (const maildir of below(resolve(path), 0)) {
      found = true
      yield maildir
    }
    if (!found) {
      throw new UsageFault(`${path}: there is no maildrop: name a directory that holds new/ and cur/, or one above it`)
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
 * The maildrops that the settings name: those of popup.passwd_file, or those of the accounts in
 * `accountsFile` if the checker accepts these accounts. Missing maildrops are left out.
 * @throws UsageFault if the settings do not name maildrops.
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
      `popup.checker = "${popup.checker}" does not name the maildrops. Name directories: auth-relay check --maildirs /var/mail`,
    )
  }
  return [...new Set(maildirs)].filter(path => isDirectory(path))
}

/** Accounts of popup.passwd_file whose maildrop is missing. */
export function checkMissingMaildrops({ popup }: Settings): readonly Finding[] {
  if (popup.checker !== 'passwd-file' || !isReadable(popup.passwd_file)) return []
  const missing = linesOf(popup.passwd_file).flatMap(([login = '', , uid, gid, home = '', named = '']) => {
    const maildir = maildirOf(home, named || popup.maildir)
    const remedy = remedyForMissing({ uid: Number(uid), gid: Number(gid), maildir })
    return remedy === undefined ? [] : [{ login, maildir, remedy }]
  })
  const [first] = missing
  if (first === undefined) return []
  const others = missing.length > 1 ? ` and ${missing.length - 1} more` : ''
  return [
    advice(
      'popup.passwd_file',
      `${first.login}${others}: no maildrop at ${first.maildir}, so each session ends with -ERR after the login`,
      first.remedy,
    ),
  ]
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
    return false // missing or not accessible
  }
}

function entriesOf(directory: string): readonly Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
  } catch {
    return [] // not accessible: only root could find maildrops below it
  }
}

/** Maximum number of files checked in one maildrop: some 100 MB of memory. */
const MAX_FILES = 500_000

/** Seconds by which a file's time may be ahead: pop3d lists it soon. */
const FUTURE_TOLERANCE_S = 60

/** Files of one maildrop that pop3d treats differently from the owner's expectation. */
export interface MaildirReport {
  readonly maildir: string
  /** Number of files checked. */
  readonly files: number
  /**
   * Names that are not a unique-id of RFC 1939. Clients download these messages again after a
   * change from qmail-pop3d.
   */
  readonly odd_names: Kind
  /** Files that the owner of the maildrop cannot read. */
  readonly unreadable: Kind
  /** Files whose time is ahead: not listed until then. */
  readonly future: Kind
  readonly symbolic_links: Kind
  /** Messages with the base name of another one. */
  readonly twins: Kind
  /** The reason why the maildrop could not be checked, or not all of it. */
  readonly error?: string
}

export interface Kind {
  readonly count: number
  /** The first of them, e.g. `new/NAME`. */
  readonly example?: string
}

class Tally {
  count = 0
  example: string | undefined

  add(file: string): void {
    this.count += 1
    this.example ??= file
  }

  get kind(): Kind {
    return this.example === undefined ? { count: this.count } : { count: this.count, example: this.example }
  }
}

/**
 * Reads the names and the status of all files of a maildrop. No file is opened. `now` in Unix
 * seconds.
 */
export function inspectMaildir(maildir: string, now: number, maxFiles = MAX_FILES): MaildirReport {
  const oddNames = new Tally()
  const unreadable = new Tally()
  const future = new Tally()
  const symbolicLinks = new Tally()
  const twins = new Tally()
  const bases = new Set<string>()
  const linked = new Set<string>()
  let files = 0
  let error: string | undefined
  try {
    const owner = statSync(maildir)
    for (const file of filesOf(maildir)) {
      if (files >= maxFiles) {
        error = `more than ${maxFiles} files: the others were not checked`
        break
      }
      files += 1
      const status = lstatSync(file.path, { throwIfNoEntry: false })
      if (status === undefined) continue // the file was renamed or removed meanwhile
      if (status.isSymbolicLink()) symbolicLinks.add(file.shown)
      if (!status.isFile()) continue
      const base = baseNameOf(file.name)
      if (status.nlink > 1) {
        // Two names of one file are one message: an interrupted move leaves them.
        const link = `${status.ino}/${base}`
        if (linked.has(link)) continue
        linked.add(link)
      }
      if (Math.floor(status.mtimeMs / 1000) > now + FUTURE_TOLERANCE_S) future.add(file.shown)
      if (!isReadableBy(owner, status)) unreadable.add(file.shown)
      if (!isUniqueId(base)) oddNames.add(file.shown)
      if (bases.has(base)) twins.add(file.shown)
      else bases.add(base)
    }
  } catch (cause) {
    error = messageOf(cause)
  }
  return {
    maildir,
    files,
    odd_names: oddNames.kind,
    unreadable: unreadable.kind,
    future: future.kind,
    symbolic_links: symbolicLinks.kind,
    twins: twins.kind,
    ...(error === undefined ? {} : { error }),
  }
}

/** The findings about a maildrop; none if pop3d serves all of it, under qmail's unique ids. */
export function checkMaildir(report: MaildirReport, compat: 'none' | 'qmail'): readonly Finding[] {
  const { maildir, odd_names, unreadable, future, symbolic_links, twins, error } = report
  const found: Finding[] = []
  const addFinding = (kind: Kind, text: string, remedy: string) => {
    if (kind.count > 0) found.push(advice(maildir, `${text}, e.g. ${kind.example ?? ''}`, remedy))
  }
  if (compat === 'none') {
    addFinding(
      odd_names,
      `${count(odd_names.count, 'message')} would be downloaded again after a change from qmail-pop3d: the name is longer than 70 characters or not printable ASCII`,
      'set popup.compat = "qmail", which keeps qmail’s ids, or accept it',
    )
    addFinding(
      twins,
      `${count(twins.count, 'message')} with the name of another one: the id is made of name and time`,
      'remove the copies, if they are copies',
    )
  } else {
    addFinding(
      twins,
      `${count(twins.count, 'message')} with the name of another one: clients see the same id twice`,
      'remove the copies, if they are copies',
    )
  }
  addFinding(unreadable, `${count(unreadable.count, 'message')} that the owner cannot read`, 'chown or chmod the files')
  addFinding(
    future,
    `${count(future.count, 'message')} with a time in the future, not listed before that time`,
    'correct the clock, then touch the files',
  )
  addFinding(
    symbolic_links,
    `${count(symbolic_links.count, 'symbolic link')}, not listed: qmail-pop3d follows them`,
    'replace each link by its file',
  )
  const remedy = report.files < MAX_FILES ? 'run as root' : 'move old messages to another folder'
  if (error !== undefined) found.push(unsafe(maildir, `not checked in full: ${error}`, remedy))
  return found
}

/**
 * True if the owner of the maildrop may read the file by its mode. Access control lists are not
 * considered.
 */
function isReadableBy(owner: Stats, file: Stats): boolean {
  if (owner.uid === file.uid) return (file.mode & 0o400) !== 0
  if (owner.gid === file.gid) return (file.mode & 0o040) !== 0
  return (file.mode & 0o004) !== 0
}

/**
 * Files of new/ and cur/ whose names do not begin with a dot; names hold one character per octet.
 */
function* filesOf(
  maildir: string,
): Generator<{ readonly path: Buffer; readonly name: string; readonly shown: string }> {
  for (const folder of ['new', 'cur']) {
    const directory = opendirSync(`${maildir}/${folder}`, { encoding: 'latin1' })
    try {
      for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
        const { name } = entry
        if (name.startsWith('.')) continue
        const octets = Buffer.from(name, 'latin1')
        yield {
          path: Buffer.concat([Buffer.from(`${maildir}/${folder}/`), octets]),
          name,
          shown: `${folder}/${octets.toString('utf8')}`,
        }
      }
    } finally {
      directory.closeSync()
    }
  }
}
