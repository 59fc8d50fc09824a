/**
 * Followed log files as a login source: rotation, truncation, and the position that survives a
 * restart.
 */
import { type FSWatcher, type Stats, watch } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { asError, errorCodeOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { ContainerLines, MAX_LOG_FILE_LINE } from '../syslog/container-lines.ts'
import { LineSplitter } from '../wire/lines.ts'
import type { Counters } from './counters.ts'
import type { FilePlaces } from './file-places.ts'
import type { LoginSources } from './login-sources.ts'

export type FollowedFileOptions = {
  readonly path: string
  readonly places: FilePlaces
  readonly sources: Pick<LoginSources, 'acceptFileLine'>
  readonly counters: Counters
  readonly log: Log
}

const READ_OCTETS = 262_144
/**
 * Milliseconds between two checks of the file where the kernel sends no event (network file
 * systems).
 */
const LOOK_AGAIN_MS = 1000
/** The name that logrotate gives to the file that was current. */
const ROTATED = '.1'

/**
 * Follows a log file through rotation and truncation, and over restarts of authd.
 *
 * The file is the queue: authd reads the next piece after every login of this one is stored. The
 * saved position is therefore never ahead of the store. Reading a new file starts at its end.
 */
export class FollowedFile {
  readonly #options: FollowedFileOptions
  #watcher: FSWatcher | undefined
  #file: { readonly handle: FileHandle; readonly inode: number } | undefined
  #offset = 0
  #splitter = new LineSplitter(MAX_LOG_FILE_LINE)
  #containers = new ContainerLines('first')
  /** The next file goes on where the last one ended: a line may have its first pieces there. */
  #isContinuing = false
  #wake: (() => void) | undefined
  #stopped = false
  #isFaultLogged = false
  /** Inode of the file that was last reported as followed. */
  #reported: number | undefined
  readonly #running: Promise<void>

  constructor(options: FollowedFileOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  /** Ends after the piece that is being read; its place is kept. */
  async close(): Promise<void> {
    this.#stopped = true
    this.#watcher?.close()
    this.#wake?.()
    await Promise.race([this.#running, new Promise(resolve => setTimeout(resolve, 200).unref())])
  }

  async #run(): Promise<void> {
    const buffer = Buffer.allocUnsafe(READ_OCTETS)
    let first = true
    while (!this.#stopped) {
      try {
        const atEnd = first
        first = false
        if (this.#file === undefined) await this.#open(atEnd)
        const octets = await this.#readPiece(buffer)
        this.#isFaultLogged = false
        if (octets > 0 || (await this.#wasReplaced())) continue
      } catch (error) {
        this.#logOnce(error)
        // The file may be unreadable for ever: a stale handle of a network file system, or a
        // directory in place of the file. It is opened again at its saved place.
        await this.#leave()
      }
      await this.#change()
    }
    await this.#leave()
  }

  /** Closes the file. It counts as closed also if the close fails. */
  async #leave(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    if (file !== undefined) await closeQuietly(file.handle)
  }

  async #open(atEnd: boolean): Promise<void> {
    const { path, places, log } = this.#options
    const place = places.get(path)
    const current = await stat(path).catch(notThere)
    if (place !== undefined && place.inode !== current?.ino) {
      // The file was rotated while authd did not run. The rest of the old file comes first.
      const rotated = await stat(`${path}${ROTATED}`).catch(notThere)
      if (rotated?.ino === place.inode) {
        await this.#begin(`${path}${ROTATED}`, place.offset)
        return
      }
    }
    if (current === undefined) throw new Error(`there is no ${path}: it is waited for`)
    const offset = place === undefined ? (atEnd ? current.size : 0) : place.inode === current.ino ? place.offset : 0
    await this.#begin(path, offset)
    if (this.#reported === this.#file?.inode) return
    this.#reported = this.#file?.inode
    log.info('file_followed', { path, offset: this.#offset })
  }

  async #begin(path: string, offset: number): Promise<void> {
    const handle = await open(path, 'r')
    const { ino, size } = await statusOf(handle)
    this.#file = { handle, inode: ino }
    this.#offset = offset > size ? 0 : offset
    this.#splitter = new LineSplitter(MAX_LOG_FILE_LINE)
    if (!this.#isContinuing) this.#containers = await this.#linesBefore(handle)
    this.#isContinuing = false
    this.#options.places.set(this.#options.path, { inode: ino, offset: this.#offset })
    this.#watcher?.close()
    this.#watcher = this.#watch()
  }

  /** Undefined if the host has no watch left. The file is also checked every second. */
  #watch(): FSWatcher | undefined {
    try {
      const watcher = watch(dirname(this.#options.path), (_, name) => {
        if (name === null || name === basename(this.#options.path)) this.#wake?.()
      })
      return watcher.on('error', () => watcher.close())
    } catch {
      return undefined
    }
  }

  /**
   * The state of a container's lines at the position where reading begins. The lines before it show
   * whether a line is incomplete there.
   */
  async #linesBefore(handle: FileHandle): Promise<ContainerLines> {
    const begin = Math.max(0, this.#offset - READ_OCTETS)
    const containers = new ContainerLines(begin === 0 ? 'first' : 'anywhere')
    const buffer = Buffer.alloc(this.#offset - begin)
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, begin)
    const { lines } = new LineSplitter(MAX_LOG_FILE_LINE).push(buffer.subarray(0, bytesRead))
    // The first one may be the end of a line.
    for (const line of begin === 0 ? lines : lines.slice(1)) containers.unwrap(line)
    return containers
  }

  /** Reads the next piece and waits until every login in it is stored or refused. */
  async #readPiece(buffer: Buffer): Promise<number> {
    const file = this.#file
    if (file === undefined) return 0
    const { size } = await file.handle.stat()
    if (size < this.#offset) {
      this.#options.log.info('file_truncated', { path: this.#options.path })
      this.#offset = 0
      this.#containers = new ContainerLines('first')
      this.#splitter = new LineSplitter(MAX_LOG_FILE_LINE)
    }
    const { bytesRead } = await file.handle.read(buffer, 0, buffer.length, this.#offset)
    if (bytesRead === 0) return 0
    this.#offset += bytesRead
    const { lines, overlongAt } = this.#splitter.push(buffer.subarray(0, bytesRead))
    this.#options.counters.overlong.file += overlongAt.length
    await this.#dealWith(lines, new Set(overlongAt))
    if (overlongAt.includes(lines.length)) this.#containers.lose()
    this.#options.places.set(this.#options.path, {
      inode: file.inode,
      offset: this.#offset - this.#splitter.pending,
    })
    return bytesRead
  }

  /** `after`: before each of these lines, lines were dropped because of their length. */
  #dealWith(lines: readonly string[], after: ReadonlySet<number>): Promise<void> {
    return new Promise(resolve => {
      let open = 1
      const settled = (): void => {
        open -= 1
        if (open === 0) resolve()
      }
      const { sources, path } = this.#options
      for (const [n, line] of lines.entries()) {
        if (after.has(n)) this.#containers.lose()
        open += 1
        if (!sources.acceptFileLine({ path, containers: this.#containers }, line, settled)) open -= 1
      }
      settled()
    })
  }

  /**
   * True if another file has the name now, so that it is next. Called at the end of this file only.
   */
  async #wasReplaced(): Promise<boolean> {
    const file = this.#file
    const current = await stat(this.#options.path).catch(notThere)
    if (file === undefined || current === undefined || current.ino === file.inode) return false
    // logrotate creates the new file before the writer closes the old one. So authd leaves the old
    // file when the new one has lines.
    if (current.size === 0) return false
    if ((await file.handle.stat()).size > this.#offset) return true
    await this.#leave()
    this.#isContinuing = true
    this.#options.places.set(this.#options.path, { inode: current.ino, offset: 0 })
    return true
  }

  /** The kernel reported a change, or a second passed. */
  #change(): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, LOOK_AGAIN_MS)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  #logOnce(error: unknown): void {
    if (this.#isFaultLogged || this.#stopped) return
    this.#isFaultLogged = true
    this.#options.log.warn('file_unreadable', {
      path: this.#options.path,
      reason: asError(error),
    })
  }
}

const closeQuietly = (handle: FileHandle): Promise<void> => handle.close().catch(() => {})

/** The status of an open file, which is closed if the status cannot be read. */
async function statusOf(handle: FileHandle): Promise<Stats> {
  try {
    return await handle.stat()
  } catch (error) {
    await closeQuietly(handle)
    throw error
  }
}

const notThere = (error: unknown): undefined => {
  if (errorCodeOf(error) === 'ENOENT') return undefined
  throw error
}
