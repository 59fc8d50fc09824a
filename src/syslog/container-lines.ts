/** Log files of container runtimes: Docker's JSON, and the text format of CRI. */
import * as v from 'valibot'
import { RFC3339_STAMP } from './stamp-time.ts'
import { MAX_SYSLOG_LINE, readParts } from './syslog-line.ts'

/**
 * Longest line of a log file in octets. A runtime cuts at 16 KiB, and a control character has six
 * octets in JSON.
 */
export const MAX_LOG_FILE_LINE = 131_072

/** A line that a process in a container wrote, with the stamp of the container runtime. */
export type ContainerLine = { readonly stamp: string; readonly text: string }

type Piece = ContainerLine & { readonly stream: string; readonly isLast: boolean }

/**
 * The pieces of the current line of a stream so far. `lost`: a piece is missing or the line is too
 * long, so the line cannot be a login.
 */
type Begun = ContainerLine | 'nothing' | 'lost'

/** A line of Docker's `json-file`. */
const jsonFileLine = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({
    log: v.string(),
    stream: v.picklist(['stdout', 'stderr']),
    time: v.pipe(v.string(), v.regex(new RegExp(`^${RFC3339_STAMP}$`))),
  }),
)
const CRI = new RegExp(`^(${RFC3339_STAMP}) (stdout|stderr) ([FP])(?::[!-~]{0,100})? (.*)$`, 's')

/**
 * Joins the pieces of lines. A runtime cuts long lines, and the peer of the process may choose the
 * place of the cut. So a piece is never read as a separate line: it counts only as a part of its
 * whole line, for each stream separately.
 */
export class ContainerLines {
  readonly #begun = new Map<string, Begun>()
  /** State of a stream of which no piece was read yet. */
  #unseen: 'nothing' | 'lost'

  /** `first`: the input begins with the first line of the file. */
  constructor(beginning: 'first' | 'anywhere') {
    this.#unseen = beginning === 'first' ? 'nothing' : 'lost'
  }

  /** Call this after a line of the file was dropped unread, because it may have been a piece. */
  lose(): void {
    this.#begun.clear()
    this.#unseen = 'lost'
  }

  /**
   * Returns the line of the process that this line of the file completes; `piece` if it completes
   * none; undefined if the file has another format.
   */
  unwrap(fileLine: string): ContainerLine | 'piece' | undefined {
    const piece = parseJsonFile(fileLine) ?? parseCri(fileLine)
    if (piece === undefined) return undefined
    const { stream, isLast, stamp, text } = piece
    const before = this.#begun.get(stream) ?? this.#unseen
    const line = join(before, { stamp, text })
    this.#begun.set(stream, isLast ? 'nothing' : line)
    return isLast && line !== 'lost' ? line : 'piece'
  }
}

/** True for a line of a container runtime's log file. */
export const isOfContainer = (fileLine: string): boolean =>
  parseJsonFile(fileLine) !== undefined || parseCri(fileLine) !== undefined

/** Appends a piece. The stamp is that of the first piece. */
function join(before: Begun, { stamp, text }: ContainerLine): ContainerLine | 'lost' {
  if (before === 'lost') return 'lost'
  const joined = before === 'nothing' ? { stamp, text } : { stamp: before.stamp, text: before.text + text }
  return Buffer.byteLength(joined.text) > MAX_SYSLOG_LINE ? 'lost' : joined
}

function parseCri(line: string): Piece | undefined {
  const parts = readParts(CRI, line)
  if (parts === undefined) return undefined
  const [, stamp, stream, tag, text] = parts
  return { stamp, stream, isLast: tag === 'F', text }
}

/** Docker ends the text of a whole line with LF; a terminal puts CR before it. */
function parseJsonFile(line: string): Piece | undefined {
  if (!line.startsWith('{"log":"') || !line.endsWith('}')) return undefined
  const { success, output } = v.safeParse(jsonFileLine, line)
  if (!success) return undefined
  const { log, stream, time } = output
  const isLast = log.endsWith('\n')
  return { stamp: time, stream, isLast, text: isLast ? log.replace(/\r?\n$/, '') : log }
}
