/** The accounts and groups of the host, and crypt(3). */
import { constants } from 'node:os'
import { addressOf, asyncTextFunction, nativeFunction, SystemCallError } from './native-function.ts'

/** A row of the user database (passwd(5)), from any service that the host uses for it. */
export type Account = { readonly name: string; readonly uid: number; readonly gid: number; readonly home: string }

const getpwnam = nativeFunction('int getpwnam_r(const char *name, void *row, void *text, size_t size, void *found)')
const getpwuid = nativeFunction('int getpwuid_r(uint32_t uid, void *row, void *text, size_t size, void *found)')
const getgrnam = nativeFunction('int getgrnam_r(const char *name, void *row, void *text, size_t size, void *found)')

/** The account of that name, or undefined if the host has none (getpwnam_r(3)). */
export function accountNamed(name: string): Account | undefined {
  return look('getpwnam_r', (row, text, found) => getpwnam(name, row, text, text.length, found), accountIn)
}

/** The account with that user id, or undefined (getpwuid_r(3)). */
export function accountWithUid(uid: number): Account | undefined {
  return look('getpwuid_r', (row, text, found) => getpwuid(uid, row, text, text.length, found), accountIn)
}

/** Id of the group of that name, or undefined if the host has none (getgrnam_r(3)). */
export function groupNamed(name: string): number | undefined {
  return look(
    'getgrnam_r',
    (row, text, found) => getgrnam(name, row, text, text.length, found),
    row => row.readUInt32LE(GROUP_GID),
  )
}

/**
 * Octets for the texts of a row, at first and at most. A directory service may need more than a
 * page.
 */
const [FIRST_TEXT, LARGEST_TEXT] = [4096, 1_048_576]

/**
 * `struct passwd` where pointers have 64 bits: name, password, uid and gid, comment, home, shell.
 */
const ROW = { size: 48, name: 0, uid: 16, gid: 20, home: 32 } as const
/** `struct group`, which is smaller: name, password, gid, members. */
const GROUP_GID = 16

/** Return values of the two calls when the account does not exist (getpwnam(3), ERRORS). */
const NO_ACCOUNT: ReadonlySet<number> = new Set([
  0,
  constants.errno.ENOENT,
  constants.errno.ESRCH,
  constants.errno.EBADF,
  constants.errno.EPERM,
])

function look<Found>(
  syscall: string,
  ask: (row: Buffer, text: Buffer, found: Buffer) => number,
  read: (row: Buffer, textAt: (pointer: number) => string) => Found,
  size = FIRST_TEXT,
): Found | undefined {
  const [row, text, found] = [Buffer.alloc(ROW.size), Buffer.alloc(size), Buffer.alloc(8)]
  const errno = ask(row, text, found)
  if (errno === constants.errno.ERANGE && size < LARGEST_TEXT) return look(syscall, ask, read, size * 4)
  if (!NO_ACCOUNT.has(errno)) throw new SystemCallError(syscall, errno)
  if (found.readBigUInt64LE() === 0n) return undefined
  const base = addressOf(text)
  return read(row, pointer => {
    const start = Number(row.readBigUInt64LE(pointer)) - base
    if (start < 0 || start >= text.length)
      throw new RangeError(`${syscall}: a text lies outside the memory it was given`)
    return text.toString('utf8', start, text.indexOf(0, start))
  })
}

const accountIn = (row: Buffer, textAt: (pointer: number) => string): Account => ({
  name: textAt(ROW.name),
  uid: row.readUInt32LE(ROW.uid),
  gid: row.readUInt32LE(ROW.gid),
  home: textAt(ROW.home),
})

/** sizeof(struct crypt_data) in libxcrypt, part of its ABI. */
const CRYPT_DATA_SIZE = 32_768

const cryptR = asyncTextFunction('libcrypt.so.1', 'str crypt_r(const char *phrase, const char *setting, void *data)')

/**
 * crypt(3): the hash of a password under a setting, by every method of the host's libcrypt. A whole
 * stored hash is a setting. A password given as text is hashed as UTF-8. Runs on a thread, so that
 * a slow hash does not block the event loop. Undefined if libcrypt refuses the setting. The caller
 * compares the result with the stored hash in constant time.
 */
export async function crypt(password: string | Uint8Array, setting: string): Promise<string | undefined> {
  // crypt(3) reads up to the first NUL: `secret\0anything` would pass for `secret`.
  const octets = typeof password === 'string' ? Buffer.from(password, 'utf8') : password
  if (octets.includes(0) || setting.includes('\0')) return undefined
  const phrase = Buffer.concat([octets, Buffer.alloc(1)])
  let data: Buffer | undefined
  const hash = await cryptR(() => {
    data = Buffer.alloc(CRYPT_DATA_SIZE)
    return [phrase, setting, data]
  })
  data?.fill(0)
  phrase.fill(0)
  // crypt(3) returns `*0` or `*1` after a failure, which must never equal a stored `*`.
  return hash === undefined || hash.startsWith('*') ? undefined : hash
}
