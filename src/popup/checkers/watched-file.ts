import { closeSync, fstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs'
import { messageOf } from '../../base/errors.ts'
import { UsageFault } from '../../base/exit-status.ts'
import type { Log } from '../../base/log.ts'

/**
 * A file with secrets that is read again when it has changed, without a restart. A stat before each use costs
 * microseconds; a file that became unreadable or open to others answers nobody until it is right again.
 */
export class WatchedFile<Content> {
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

  /** What the file says now; undefined while it cannot be used, which is logged once. */
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

/** The same file with the same content, as far as its status tells. */
const isSameFile = (now: Stats, then: Stats | undefined): boolean =>
  now.mtimeMs === then?.mtimeMs &&
  now.ctimeMs === then.ctimeMs &&
  now.size === then.size &&
  now.ino === then.ino &&
  now.dev === then.dev
