import { randomBytes } from 'node:crypto'
import { TemporaryFault } from '../base/exit-status.ts'
import { crypt } from '../libc/accounts.ts'

/**
 * Methods of crypt(5) by the prefix of their settings, best first: what the host's libcrypt does
 * not know is passed over.
 */
const METHODS = ['$y$j9T$', '$6$rounds=100000$'] as const

const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/**
 * A crypt(5) hash of a password with a random salt: yescrypt where the host knows it, else SHA-512.
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
