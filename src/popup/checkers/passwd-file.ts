/**
 * Accounts and APOP secrets in files of the site: their format, the checker, and reading them
 * again.
 */
import { closeSync, fstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs'
import { messageOf, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { loginText } from '../../wire/login-event.ts'
import type { CheckQueue } from './check-queue.ts'
import { type Checker, maildirPath, no, temporary } from './checker.ts'
import { type AuthenticationCache, verifyApop, verifyPassword } from './password-hash.ts'

/** Number of faulty lines that are logged individually. */
const FAULTS_SHOWN = 20

type Accounts = { readonly entries: ReadonlyMap<string, PasswdEntry>; readonly decoy: string }

/**
 * Accounts of a file that needs no other program (`login:hash:uid:gid:home:maildir`), and APOP
 * secrets of another one. Both are read again when they change. An unknown login costs the same
 * work as a known one.
 * @throws UsageFault if a file cannot be read, or is open to others.
 */
export function passwdFileChecker(
  options: { readonly passwdFile: string; readonly apopFile: string; readonly maildir: string },
  passwords: AuthenticationCache,
  hashing: CheckQueue,
  log: Log,
): Checker {
  const parse = (text: string): Accounts => {
    const { entries, faults } = parsePasswd(text, options.maildir)
    for (const { line, reason } of faults.slice(0, FAULTS_SHOWN)) {
      log.warn('passwd_line_ignored', { path: options.passwdFile, line_number: line, reason })
    }
    if (faults.length > FAULTS_SHOWN) log.warn('passwd_faults_omitted', { count: faults.length })
    return { entries, decoy: decoyOf(entries) }
  }
  const accounts = new WatchedFile(options.passwdFile, 0o007, parse, log)
  const secrets = options.apopFile === '' ? undefined : new WatchedFile(options.apopFile, 0o077, parseApopSecrets, log)
  return {
    check: async ({ login, secret, method, timestamp, applicant }) => {
      const inTurn = <T>(work: () => Promise<T>): Promise<T> => hashing.run(applicant, work)
      const name = loginText(login)
      const known = accounts.current()
      if (known === undefined) return temporary('passwd_file is not usable')
      const entry = known.entries.get(name)
      if (method === 'apop') {
        const apop = secrets?.current()
        if (secrets !== undefined && apop === undefined) return temporary('apop_file is not usable')
        const right = verifyApop(secret, timestamp, apop?.get(name) ?? ' ') && apop?.has(name) === true
        if (entry === undefined || !right) return no(apop === undefined ? 'no APOP secrets' : 'wrong login or digest')
      } else {
        if (entry === undefined) {
          await verifyPassword(secret, known.decoy, inTurn)
          return no('unknown login')
        }
        const right = await passwords.verify(secret, entry.hash, inTurn)
        if (right === undefined) return no('no password set, or a hash that this system does not know')
        if (!right) return no('wrong password')
      }
      const { uid, gid, maildir } = entry
      return { kind: 'yes', maildrop: { uid, gid, maildir } }
    },
    close: () => {},
  }
}

/**
 * For unknown logins: the hash of another login, of the most frequent kind. Its check takes the
 * same time, and the result is discarded.
 */
function decoyOf(entries: ReadonlyMap<string, PasswdEntry>): string {
  const kinds = new Map<string, { count: number; hash: string }>()
  for (const { hash } of entries.values()) {
    const kind = /^\{[^}]*\}|^\$[^$]*\$/.exec(hash)?.[0] ?? ''
    const row = kinds.get(kind) ?? { count: 0, hash }
    row.count += 1
    kinds.set(kind, row)
  }
  return [...kinds.values()].sort((a, b) => b.count - a.count)[0]?.hash ?? ''
}

/** One account of a passwd file. */
type PasswdEntry = {
  readonly login: string
  readonly hash: string
  readonly uid: number
  readonly gid: number
  readonly maildir: string
}

/** An invalid line: its fault, without a part of the hash. */
type PasswdFault = { readonly line: number; readonly reason: string }

/**
 * Reads `login:hash:uid:gid:home:maildir`. Empty lines and lines that begin with `#` are comments.
 * The maildir may be left out (the default below the home) or relative to the home. The first line
 * of a login counts.
 */
export function parsePasswd(
  text: string,
  defaultMaildir: string,
): { readonly entries: ReadonlyMap<string, PasswdEntry>; readonly faults: readonly PasswdFault[] } {
  const entries = new Map<string, PasswdEntry>()
  const faults: PasswdFault[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const trimmed = line.trim()
    if (trimmed === '' || trimmed.startsWith('#')) continue
    const entry = parseLine(trimmed, defaultMaildir)
    if (typeof entry === 'string') faults.push({ line: index + 1, reason: entry })
    else if (entries.has(entry.login)) faults.push({ line: index + 1, reason: 'a second line for the same login' })
    else entries.set(entry.login, entry)
  }
  return { entries, faults }
}

function parseLine(line: string, defaultMaildir: string): PasswdEntry | string {
  const [login = '', hash = '', uid = '', gid = '', home = '', maildir = '', ...more] = line.split(':')
  if (more.length > 0) return 'more than six fields'
  if (login === '' || login.includes('\0')) return 'no login'
  if (!isId(uid) || !isId(gid)) return 'uid and gid must be numbers'
  if (Number(uid) === 0) return 'uid 0 never gets a session: give the mail to another user'
  const path = maildirPath(maildir, home, defaultMaildir)
  if (path === undefined) return 'neither home nor maildir is an absolute path'
  return { login, hash, uid: Number(uid), gid: Number(gid), maildir: path }
}

const isId = (text: string): boolean => /^\d{1,10}$/.test(text) && Number(text) < 0xffff_ffff

/**
 * Reads `login:secret`, a line each; the secret is the rest of the line. A line is a comment if its
 * first character after blanks is `#`, as in the passwd file.
 */
export function parseApopSecrets(text: string): ReadonlyMap<string, string> {
  const secrets = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(':')
    if (colon < 1 || line.trimStart().startsWith('#')) continue
    const [login, secret] = [line.slice(0, colon), line.slice(colon + 1)]
    if (secret !== '' && !secrets.has(login)) secrets.set(login, secret)
  }
  return secrets
}

/**
 * A file with secrets that is read again when it has changed, without a restart. A stat before each
 * use costs microseconds. While the file is unreadable or open to other accounts, no login
 * succeeds.
 */
class WatchedFile<Content> {
  readonly #path: string
  readonly #forbiddenMode: number
  readonly #parse: (text: string) => Content
  readonly #log: Log
  /** Of the file as it was read; undefined while it cannot be used. */
  #status: Stats | undefined
  #content: Content | undefined
  #complaint = ''

  /**
   * `forbiddenMode`: permission bits that must not be set.
   * @throws UsageFault if the file cannot be used now.
   */
  constructor(path: string, forbiddenMode: number, parse: (text: string) => Content, log: Log) {
    this.#path = path
    this.#forbiddenMode = forbiddenMode
    this.#parse = parse
    this.#log = log
    this.#read()
  }

  /** The content of the file now; undefined while it is unusable, which is logged once. */
  current(): Content | undefined {
    try {
      if (!isSameFile(statSync(this.#path), this.#status)) {
        this.#read()
        this.#log.info('file_read', { path: this.#path })
      }
      this.#complaint = ''
    } catch (error) {
      this.#content = undefined
      this.#status = undefined
      const complaint = messageOf(error)
      if (complaint !== this.#complaint) this.#log.error('file_unusable', { path: this.#path, reason: complaint })
      this.#complaint = complaint
    }
    return this.#content
  }

  #read(): void {
    const fd = open(this.#path)
    try {
      const status = fstatSync(fd)
      if ((status.mode & this.#forbiddenMode) !== 0) {
        throw new UsageFault(
          `${this.#path} holds secrets and is open to others: chmod ${modeAdvice(this.#forbiddenMode)}`,
        )
      }
      this.#content = this.#parse(readFileSync(fd, 'utf8'))
      this.#status = status
    } finally {
      closeSync(fd)
    }
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (error) {
    throw new UsageFault(`cannot read ${path}: ${messageOf(error)}`, error)
  }
}

const modeAdvice = (forbidden: number): string => ((forbidden & 0o070) === 0 ? '0640' : '0600')

/** The same file with the same content, according to its status. */
const isSameFile = (now: Stats, then: Stats | undefined): boolean =>
  now.mtimeMs === then?.mtimeMs &&
  now.ctimeMs === then.ctimeMs &&
  now.size === then.size &&
  now.ino === then.ino &&
  now.dev === then.dev
