import { maildirPath } from './maildir-path.ts'

/** One account of a passwd file. */
export type PasswdEntry = {
  readonly login: string
  readonly hash: string
  readonly uid: number
  readonly gid: number
  readonly maildir: string
}

/** A line that says nothing: what is wrong with it, without a word of the hash. */
export type PasswdFault = { readonly line: number; readonly reason: string }

/**
 * Reads `login:hash:uid:gid:home:maildir`. Empty lines and lines that begin with `#` are comments. The maildir may be
 * left out (the default below the home) or relative to the home. The first line of a login counts.
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

/** Reads `login:secret`, a line each; the secret is the rest of the line. Comments as in the passwd file. */
export function parseApopSecrets(text: string): ReadonlyMap<string, string> {
  const secrets = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(':')
    if (colon < 1 || line.startsWith('#')) continue
    const [login, secret] = [line.slice(0, colon), line.slice(colon + 1)]
    if (secret !== '' && !secrets.has(login)) secrets.set(login, secret)
  }
  return secrets
}
