import { asyncTextFunction } from './native-function.ts'

/** sizeof(struct crypt_data) in libxcrypt, part of its ABI. */
const CRYPT_DATA_SIZE = 32_768

const cryptR = asyncTextFunction('libcrypt.so.1', 'str crypt_r(const char *phrase, const char *setting, void *data)')

/**
 * crypt(3): the hash of a password under a setting (a whole stored hash is a setting), by every method that the system knows.
 * A password given as text is hashed as UTF-8. Runs on a thread, so that a slow hash stops nobody. Undefined if the system refuses the setting.
 * The caller compares the result with the stored hash in constant time.
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
  // `*0` and `*1` are crypt(3)'s words for failure; they must never equal a stored `*`.
  return hash === undefined || hash.startsWith('*') ? undefined : hash
}
