/**
 * Secrets that auth-relay makes: random passwords, password hashes, private files, the passwd file.
 */

import { randomBytes, randomInt } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fchownSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { messageOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { crypt } from '../libc/accounts.ts'

/** A random secret of 192 bits, as 32 characters that need no quoting in TOML, SQL or a shell. */
export const randomSecret = (): string => randomBytes(24).toString('base64url')

/**
 * Makes sure that a file with a secret exists: one line, mode 0600, written whole or not at all. An
 * old one is kept.
 */
export function ensureSecretFile(path: string, owner?: { readonly uid: number; readonly gid: number }): void {
  if (existsSync(path)) return
  writePrivateFile(path, `${randomSecret()}\n`, owner)
}

/**
 * Writes a file of mode 0600 in one step: readers see the old text or the new one, also after a
 * crash. If the text cannot be written whole, throws and leaves the old file as it is.
 */
export function writePrivateFile(
  path: string,
  text: string,
  owner?: { readonly uid: number; readonly gid: number },
): void {
  const temporary = `${path}.${process.pid}.tmp`
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    try {
      if (owner !== undefined) fchownSync(fd, owner.uid, owner.gid)
      // Unlike writeSync, writes the rest after a short write.
      writeFileSync(fd, text)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

/**
 * Methods of crypt(5) by the prefix of their settings, best first. Methods that the host's libcrypt
 * does not have are skipped.
 */
const METHODS = ['$y$j9T$', '$6$rounds=100000$'] as const

const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/**
 * A crypt(5) hash of a password with a random salt: yescrypt where the host has it, else SHA-512.
 * @throws TemporaryFault if the host's libcrypt refuses all of them.
 */
export async function hashPassword(password: string): Promise<string> {
  for (const method of METHODS) {
    const hash = await crypt(password, `${method}${randomSalt(16)}$`)
    if (hash !== undefined) return hash
  }
  throw new TemporaryFault('the system has no crypt(3) for yescrypt or SHA-512: install libcrypt1')
}

/** 64 characters divide 256 evenly: no character is likelier than another. */
const randomSalt = (length: number): string => Array.from(randomBytes(length), byte => ALPHABET[byte % 64]).join('')

/** Letters and digits that are distinct on every display: without 0, O, 1, l and I. */
const TYPED = '23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

/** 20 letters and digits, for a device whose panel offers no other characters. */
export const randomPassword = (): string => Array.from({ length: 20 }, () => TYPED[randomInt(TYPED.length)]).join('')

/**
 * popup.passwd_file: a line `login:hash:uid:gid:home:maildir` for each account. Every method throws
 * UsageFault if this process may not read or write the file.
 */
export class PasswordFile {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  has(login: string): boolean {
    return this.#lines().some(isOf(login))
  }

  /** `uid:gid:home:maildir` of an account; undefined if there is none. */
  tailOf(login: string): string | undefined {
    return this.#lines().find(isOf(login))?.split(':').slice(2).join(':')
  }

  /**
   * Changes a password, or adds an account. `tail` as in tailOf; without `tail` the old one stays.
   */
  async setPassword(login: string, password: string, tail = this.tailOf(login)): Promise<void> {
    const line = `${login}:${await hashPassword(password)}:${tail ?? ''}`
    const lines = this.#lines()
    const index = lines.findIndex(isOf(login))
    this.#write(index < 0 ? [...lines, line] : lines.with(index, line))
  }

  /** Returns false if the account is missing. */
  remove(login: string): boolean {
    const lines = this.#lines()
    if (!lines.some(isOf(login))) return false
    this.#write(lines.filter(line => !isOf(login)(line)))
    return true
  }

  #lines(): readonly string[] {
    let text: string
    try {
      if (statSync(this.path, { throwIfNoEntry: false }) === undefined) return []
      text = readFileSync(this.path, 'utf8')
    } catch (error) {
      throw this.#fault('read', error)
    }
    return text.split('\n').filter((line, index, all) => line !== '' || index < all.length - 1)
  }

  /** In one step, with the old owner and group. */
  #write(lines: readonly string[]): void {
    try {
      const old = statSync(this.path, { throwIfNoEntry: false })
      writePrivateFile(
        this.path,
        lines.map(line => `${line}\n`).join(''),
        old === undefined ? undefined : { uid: old.uid, gid: old.gid },
      )
    } catch (error) {
      throw this.#fault('write', error)
    }
  }

  #fault(action: 'read' | 'write', error: unknown): UsageFault {
    const reason = messageOf(error)
    return new UsageFault(`cannot ${action} ${this.path}: ${reason}: start as root, or name another file`, error)
  }
}

const isOf =
  (login: string) =>
  (line: string): boolean =>
    line.startsWith(`${login}:`)
