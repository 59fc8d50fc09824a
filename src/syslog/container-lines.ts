import { RFC3339_STAMP } from './stamp-time.ts'
import { MAX_SYSLOG_LINE } from './syslog-line.ts'

/**
 * Longest line of a log file in octets: a runtime cuts at 16 KiB, and JSON writes a control
 * character in six octets.
 */
export const MAX_LOG_FILE_LINE = 131_072

/** A line that a process in a container wrote, with the stamp of the container runtime. */
export type ContainerLine = { readonly stamp: string; readonly text: string }

type Piece = ContainerLine & { readonly stream: string; readonly isLast: boolean }

/**
 * The part of the current line of a stream that was read: nothing, its first pieces, or `lost` if
 * it cannot be a login.
 */
type Begun = ContainerLine | 'nothing' | 'lost'

const STAMP = new RegExp(`^${RFC3339_STAMP}$`)
const CRI = new RegExp(`^(${RFC3339_STAMP}) (stdout|stderr) ([FP])(?::[!-~]{0,100})? (.*)$`, 's')

/**
 * The runtime cuts long lines, and the peer of the process may choose the place. So a piece counts
 * only as a part of its whole line, per stream. A piece whose beginning was not seen is dropped,
 * never read as a separate line.
 */
export class ContainerLines {
  readonly #begun = new Map<string, Begun>()
  /** For a stream of which no piece was read. */
  #unseen: 'nothing' | 'lost'

  /**
   * `beginning`: the input begins with the first line of the file; otherwise anywhere in the file.
   */
  constructor(beginning: 'first' | 'anywhere') {
    this.#unseen = beginning === 'first' ? 'nothing' : 'lost'
  }

  /** A line of the file was dropped unread: it may have been a piece. */
  lose(): void {
    this.#begun.clear()
    this.#unseen = 'lost'
  }

  /**
   * The line of the process that this line of the file completes; `piece` if it completes none;
   * undefined for another format.
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

/** The pieces so far. Its stamp is that of the first one. */
function join(before: Begun, { stamp, text }: ContainerLine): ContainerLine | 'lost' {
  if (before === 'lost') return 'lost'
  const joined = before === 'nothing' ? { stamp, text } : { stamp: before.stamp, text: before.text + text }
  return Buffer.byteLength(joined.text) > MAX_SYSLOG_LINE ? 'lost' : joined
}

function parseCri(line: string): Piece | undefined {
  const [match, stamp = '', stream = '', tag, text = ''] = CRI.exec(line) ?? []
  return match === undefined ? undefined : { stamp, stream, isLast: tag === 'F', text }
}

/** Docker ends the text of a whole line with LF; a terminal puts CR before it. */
function parseJsonFile(line: string): Piece | undefined {
  if (!line.startsWith('{"log":"') || !line.endsWith('}')) return undefined
  const { log, stream, time } = parseObject(line)
  if (typeof log !== 'string' || typeof time !== 'string' || !STAMP.test(time)) return undefined
  if (stream !== 'stdout' && stream !== 'stderr') return undefined
  const isLast = log.endsWith('\n')
  return { stamp: time, stream, isLast, text: isLast ? log.replace(/\r?\n$/, '') : log }
}

function parseObject(text: string): { readonly [name: string]: unknown } {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {}
  } catch {
    return {} // a line of another format
  }
}
