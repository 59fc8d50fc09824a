/** Compares passwords with stored hashes, and caches recent successful checks. */
import { argon2, createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import { KeyedHash } from '../../base/keyed-hash.ts'
import { crypt } from '../../libc/accounts.ts'

/** Runs slow work in the order of the queue. */
type InTurn = <T>(work: () => Promise<T>) => Promise<T>

const atOnce: InTurn = work => work()

/**
 * True if the password (an octet per character) matches the stored hash, in the form of crypt(3) or
 * argon2id, or with a `{SCHEME}` in front. Undefined if the form is unknown, or is not a password
 * (locked, empty). Slow forms run outside of the event loop, `inTurn`; the comparison takes
 * constant time.
 */
export async function verifyPassword(
  password: string,
  stored: string,
  inTurn: InTurn = atOnce,
): Promise<boolean | undefined> {
  if (password === '' || stored === '') return undefined
  const octets = Buffer.from(password, 'latin1')
  const [, scheme, value = ''] = /^\{([A-Za-z0-9.-]{1,32})\}(.*)$/s.exec(stored) ?? []
  const verify = scheme === undefined ? verifyCrypt : SCHEMES.get(scheme.toUpperCase())
  const given = scheme === undefined ? stored : value
  return given === '' ? undefined : verify?.(octets, given, inTurn)
}

type Verify = (password: Buffer, stored: string, inTurn: InTurn) => Promise<boolean | undefined> | boolean | undefined

/**
 * `{SSHA}`: digest of password and salt, the salt after it; `{SHA}`: the same without salt. Base64,
 * or hex where Dovecot writes hex.
 */
const DIGESTS: readonly (readonly [string, string])[] = [
  ['SMD5', 'md5'],
  ['SSHA', 'sha1'],
  ['SSHA256', 'sha256'],
  ['SSHA512', 'sha512'],
  ['LDAP-MD5', 'md5'],
  ['PLAIN-MD5', 'md5'],
  ['MD5', 'md5'],
  ['SHA', 'sha1'],
  ['SHA1', 'sha1'],
  ['SHA256', 'sha256'],
  ['SHA512', 'sha512'],
]

const SCHEMES: ReadonlyMap<string, Verify> = new Map<string, Verify>([
  ...['CRYPT', 'MD5-CRYPT', 'SHA256-CRYPT', 'SHA512-CRYPT', 'BLF-CRYPT', 'DES-CRYPT', 'ARGON2ID', 'ARGON2I'].map(
    (name): [string, Verify] => [name, verifyCrypt],
  ),
  ...['PLAIN', 'CLEAR', 'CLEARTEXT'].map((name): [string, Verify] => [
    name,
    (password, stored) => same(sha256(password), sha256(Buffer.from(stored, 'utf8'))),
  ]),
  ...DIGESTS.map(([name, algorithm]): [string, Verify] => [name, salted(algorithm)]),
])

function salted(algorithm: string): Verify {
  const length = createHash(algorithm).digest().length
  return (password, stored, inTurn) => {
    // Dovecot's {MD5} may be crypt's $1$ form.
    if (stored.startsWith('$')) return verifyCrypt(password, stored, inTurn)
    const isHex = stored.length === length * 2 && /^[0-9a-fA-F]+$/.test(stored)
    const bytes = Buffer.from(stored, isHex ? 'hex' : 'base64')
    if (bytes.length < length) return undefined
    const [digest, salt] = [bytes.subarray(0, length), bytes.subarray(length)]
    return same(createHash(algorithm).update(password).update(salt).digest(), digest)
  }
}

async function verifyCrypt(password: Buffer, stored: string, inTurn: InTurn): Promise<boolean | undefined> {
  if (stored.startsWith('$argon2')) return verifyArgon2(password, stored, inTurn)
  // `!` and `*` lock an account; crypt(3) would refuse them too.
  if (/^[!*]/.test(stored)) return undefined
  const hash = await inTurn(() => crypt(password, stored))
  return hash === undefined ? undefined : same(sha256(Buffer.from(hash)), sha256(Buffer.from(stored)))
}

const argon2Hash = promisify(argon2)
const ARGON2 =
  /^\$(?<algorithm>argon2id|argon2i|argon2d)\$v=19\$m=(?<memory>\d{1,7}),t=(?<passes>\d{1,4}),p=(?<parallelism>\d{1,3})\$(?<salt>[A-Za-z0-9+/]{11,86})\$(?<tag>[A-Za-z0-9+/]{16,172})$/

/** The PHC string form: `$argon2id$v=19$m=65536,t=3,p=4$SALT$HASH`. */
async function verifyArgon2(password: Buffer, stored: string, inTurn: InTurn): Promise<boolean | undefined> {
  const groups = ARGON2.exec(stored)?.groups
  const algorithm = groups?.['algorithm']
  if (groups === undefined || !isArgon2(algorithm)) return undefined
  const number = (name: string): number => Number(groups[name])
  const tag = Buffer.from(groups['tag'] ?? '', 'base64')
  const [memory, passes, parallelism] = [number('memory'), number('passes'), number('parallelism')]
  if (passes < 1 || parallelism < 1 || memory < 8 * parallelism) return undefined
  const nonce = Buffer.from(groups['salt'] ?? '', 'base64')
  const parameters = { message: password, nonce, memory, passes, parallelism, tagLength: tag.length }
  const hash = await inTurn(() => argon2Hash(algorithm, parameters))
  return same(hash, tag)
}

const isArgon2 = (name: string | undefined): name is 'argon2id' | 'argon2i' | 'argon2d' => name !== undefined

const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest()
const same = (a: Buffer, b: Buffer): boolean => a.length === b.length && timingSafeEqual(a, b)

/**
 * APOP (RFC 1939 §7): 32 lower-case hex digits of MD5 over the timestamp with its brackets and the
 * secret.
 */
export function verifyApop(digest: string, timestamp: string, secret: string): boolean {
  const expected = createHash('md5').update(timestamp, 'latin1').update(secret, 'utf8').digest('hex')
  return same(sha256(Buffer.from(expected)), sha256(Buffer.from(digest, 'latin1')))
}

/** Maximum number of rows; above it the oldest is dropped. */
const MAX_ROWS = 50_000

type Row = { readonly proof: string; readonly until: number }

/**
 * Cache of successful password checks, for clients that look for mail every few minutes. It skips
 * the slow hash: a password is compared by its keyed hash, under a key that never leaves this
 * process.
 *
 * The row belongs to the stored hash, so it is void at once when the password is changed or the
 * account locked. Wrong passwords always cost the whole hash.
 */
export class AuthenticationCache {
  readonly #keyed = new KeyedHash(randomBytes(32))
  readonly #rows = new BoundedMap<string, Row>(MAX_ROWS)
  readonly #lifeMs: number
  readonly #clock: Clock

  /** `lifeMs`: milliseconds from the last real check; 0: no cache. */
  constructor(lifeMs: number, clock: Clock) {
    this.#lifeMs = lifeMs
    this.#clock = clock
  }

  /** As verifyPassword. */
  verify(password: string, stored: string, inTurn?: InTurn): Promise<boolean | undefined> | boolean {
    if (this.#lifeMs === 0) return verifyPassword(password, stored, inTurn)
    const now = this.#clock()
    const row = this.#rows.get(stored)
    if (row !== undefined && row.until > now && this.#keyed.matches(textOf(password, stored), row.proof)) return true
    return this.#verifyAnew(password, stored, now, inTurn)
  }

  async #verifyAnew(
    password: string,
    stored: string,
    now: number,
    inTurn: InTurn | undefined,
  ): Promise<boolean | undefined> {
    const right = await verifyPassword(password, stored, inTurn)
    if (right === true)
      this.#rows.renew(stored, { proof: this.#keyed.hex(textOf(password, stored)), until: now + this.#lifeMs })
    return right
  }
}

/** Passwords hold no NUL: none can reach the checker (RFC 1939 lines, RFC 4616). */
const textOf = (password: string, stored: string): string =>
  `${Buffer.from(stored, 'utf8').toString('latin1')}\0${password}`
