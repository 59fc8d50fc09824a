/** Secrets: texts that must not reach a log line, and the files that contain them. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { inspect } from 'node:util'
import { denialOf, errorCodeOf, isAccessDenied, messageOf, UsageFault } from '../base/errors.ts'
import { handedText } from '../process/inherited-files.ts'

/** A text that cannot be printed, logged or serialised by accident: only `reveal` returns it. */
export class Secret {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  /** The text itself, for the one call that needs it. */
  reveal(): string {
    return this.#text
  }

  /** Compares digests, so that the time depends neither on the texts nor on their lengths. */
  matches(candidate: string): boolean {
    return timingSafeEqual(digest(this.#text), digest(candidate))
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text, 'utf8').digest()

/** `password` is refused because the original program was shipped with it. */
const REFUSED = new Set(['', 'password'])

/** The file has no secret that could be used, so that a new one loses nothing. */
export class SecretMissing extends UsageFault {
  override readonly name = 'SecretMissing'
}

/**
 * Reads the first line of a secret file: 1 to 200 printable ASCII characters (spec/popup.md §6).
 * During a reload by the supervisor the secret comes from the supervisor.
 * @throws SecretMissing if the file is missing or empty, or if it contains the word `password` or
 * another text that cannot be a secret. UsageFault if it is not regular, unreadable, or open to
 * others.
 */
export function readSecretFile(path: string): Secret {
  const handed = handedText(path)
  if (handed !== undefined) return new Secret(handed)
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    if (isAccessDenied(error)) {
      const { reason, remedy } = denialOf(path)
      throw new UsageFault({ fact: `cannot read the secret file ${path}: ${reason}`, remedy }, error)
    }
    const fault = {
      fact: `cannot read the secret file ${path}: ${messageOf(error)}`,
      remedy: 'create it with mode 0600',
    }
    throw errorCodeOf(error) === 'ENOENT' ? new SecretMissing(fault, error) : new UsageFault(fault, error)
  }
  try {
    const status = fstatSync(fd)
    if (!status.isFile()) {
      throw new UsageFault({ fact: `secret file ${path} is not a regular file`, remedy: 'put the secret into a file' })
    }
    if ((status.mode & 0o007) !== 0) {
      throw new UsageFault({
        fact: `secret file ${path} is open to every user of this host`,
        remedy: `chmod o-rwx ${path}`,
      })
    }
    const buffer = Buffer.alloc(1024)
    const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0))
    const line = text.split(/\r?\n/, 1)[0] ?? ''
    if (REFUSED.has(line)) {
      throw new SecretMissing({
        fact: `secret file ${path} holds ${line === '' ? 'no secret' : 'the default secret'}`,
        remedy: 'write a random one',
      })
    }
    if (!/^[\x20-\x7e]{1,200}$/.test(line)) {
      throw new SecretMissing({
        fact: `secret file ${path}: its first line is not a secret`,
        remedy: 'write 1 to 200 printable ASCII characters',
      })
    }
    return new Secret(line)
  } finally {
    closeSync(fd)
  }
}
