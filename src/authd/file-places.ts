/** The files in which authd keeps positions and the newest lines over restarts. */
import { mkdirSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { replaceFile } from '../base/files.ts'
import { formatLastLines, type LastLine, parseLastLines } from '../wire/last-lines.ts'

/** Position in a file: authd has processed everything before `offset`. */
export type Place = { readonly inode: number; readonly offset: number }

/**
 * The positions in followed files and in the journal, kept over restarts in one small JSON file.
 * The file is replaced in one step, so that a crash leaves the old one or the new one. An entry
 * that cannot be parsed counts as missing.
 */
export class FilePlaces {
  readonly #path: string
  readonly #places = new Map<string, Place>()
  #cursor: string | undefined
  #saved = ''

  constructor(path: string) {
    this.#path = path
    this.#load()
  }

  /** The place in a followed file, if it was ever followed. */
  get(file: string): Place | undefined {
    return this.#places.get(file)
  }

  set(file: string, place: Place): void {
    this.#places.set(file, place)
  }

  /** The journal's cursor of the last entry that was processed. */
  get cursor(): string | undefined {
    return this.#cursor
  }

  set cursor(cursor: string) {
    this.#cursor = cursor
  }

  /** Writes the positions if they changed. Throws the file system's error. */
  save(): void {
    const text = JSON.stringify({ files: Object.fromEntries(this.#places), cursor: this.#cursor })
    if (text === this.#saved) return
    replacePrivateFile(this.#path, text)
    this.#saved = text
  }

  #load(): void {
    let stored: unknown
    try {
      stored = JSON.parse(readFileSync(this.#path, 'utf8'))
    } catch {
      return // the first start, or a damaged file: every log is read from its end
    }
    if (!isRecord(stored)) return
    if (typeof stored['cursor'] === 'string') this.#cursor = stored['cursor']
    if (!isRecord(stored['files'])) return
    for (const [file, place] of Object.entries(stored['files'])) {
      if (!isRecord(place)) continue
      const { inode, offset } = place
      if (typeof inode === 'number' && typeof offset === 'number' && offset >= 0) {
        this.#places.set(file, { inode, offset })
      }
    }
  }
}

/**
 * The newest line of each login source, in a file that auth-relay status reads. authd changes
 * `lines`; entries of an earlier authd are merged into it.
 */
export class LastLinesFile {
  readonly #path: string
  readonly #lines: Map<string, LastLine>
  #saved = ''

  constructor(path: string, lines: Map<string, LastLine>) {
    this.#path = path
    this.#lines = lines
    try {
      for (const [key, line] of parseLastLines(readFileSync(path, 'utf8'))) lines.set(key, line)
    } catch {
      // The first start.
    }
  }

  /** Writes the lines if they changed. Throws the file system's error. */
  save(): void {
    const text = formatLastLines(this.#lines)
    if (text === this.#saved) return
    replacePrivateFile(this.#path, text)
    this.#saved = text
  }
}

/** Replaces a file of authd in one step, and makes its directory if it is missing. */
function replacePrivateFile(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  replaceFile(path, text, 0o600)
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null
