/**
 * The channel between the gate and a starter, which carries the sockets of SMTP clients to the
 * smtpd's account (docs/WIRE.md). Each `start` line belongs to one socket, in the same order. A
 * line is followed by a block of strings, which each end with NUL.
 */

/** Longest line of either side, in octets without LF. */
export const MAX_STARTER_LINE = 128

/** Longest block in octets. */
export const MAX_STARTER_BLOCK = 1_048_576

/** Gate to starter. */
export type StarterOrder =
  /**
   * Sets the program of all later starts. The block has its path, `args` arguments, and the
   * `NAME=value` strings of every start. `files`: soft limit of open files.
   */
  | { readonly type: 'program'; readonly args: number; readonly files: number; readonly octets: number }
  /**
   * Runs the program on the socket. The block has `without` names of variables that this start does
   * not get, then its own `NAME=value` strings.
   */
  | { readonly type: 'start'; readonly n: number; readonly without: number; readonly octets: number }
  /** Kills another starter of the same account, which has stopped answering. */
  | { readonly type: 'kill'; readonly pid: number }
  | { readonly type: 'ping'; readonly n: number }

/** The line, without LF. */
export function formatStarterOrder(order: StarterOrder): string {
  switch (order.type) {
    case 'program':
      return `program args=${order.args} files=${order.files} octets=${order.octets}`
    case 'start':
      return `start n=${order.n} without=${order.without} octets=${order.octets}`
    case 'kill':
      return `kill pid=${order.pid}`
    case 'ping':
      return `ping n=${order.n}`
  }
}

const NUMBER = '(0|[1-9]\\d{0,14})'
const PROGRAM = new RegExp(`^program args=${NUMBER} files=${NUMBER} octets=${NUMBER}$`)
const START = new RegExp(`^start n=${NUMBER} without=${NUMBER} octets=${NUMBER}$`)
const KILL = new RegExp(`^kill pid=${NUMBER}$`)
const PING = new RegExp(`^ping n=${NUMBER}$`)

/** Reads a line of the gate; undefined if it is invalid. */
export function parseStarterOrder(line: string): StarterOrder | undefined {
  const [n, without = 0, block = 0] = numbersOf(START, line)
  if (n !== undefined) return block > MAX_STARTER_BLOCK ? undefined : { type: 'start', n, without, octets: block }
  const [args, files = 0, octets = 0] = numbersOf(PROGRAM, line)
  if (args !== undefined) return octets > MAX_STARTER_BLOCK ? undefined : { type: 'program', args, files, octets }
  const [ping] = numbersOf(PING, line)
  if (ping !== undefined) return { type: 'ping', n: ping }
  const [pid = 0] = numbersOf(KILL, line)
  return isPid(pid) ? { type: 'kill', pid } : undefined
}

/** Starter to gate. */
export type StarterReply =
  /** The starter runs under its own account, and accepts orders. */
  | { readonly type: 'ready' }
  | { readonly type: 'started'; readonly n: number; readonly pid: number }
  | { readonly type: 'failed'; readonly n: number; readonly errno: number }
  /** A child has ended, with an exit status or by a signal. */
  | { readonly type: 'ended'; readonly pid: number; readonly status: number }
  | { readonly type: 'ended'; readonly pid: number; readonly signal: number }
  | { readonly type: 'pong'; readonly n: number }

/** The line, without LF. */
export function formatStarterReply(reply: StarterReply): string {
  switch (reply.type) {
    case 'ready':
      return 'ready'
    case 'started':
      return `started n=${reply.n} pid=${reply.pid}`
    case 'failed':
      return `failed n=${reply.n} errno=${reply.errno}`
    case 'ended':
      return `ended pid=${reply.pid} ${'status' in reply ? `status=${reply.status}` : `signal=${reply.signal}`}`
    case 'pong':
      return `pong n=${reply.n}`
  }
}

const STARTED = new RegExp(`^started n=${NUMBER} pid=${NUMBER}$`)
const FAILED = new RegExp(`^failed n=${NUMBER} errno=${NUMBER}$`)
const EXITED = new RegExp(`^ended pid=${NUMBER} status=${NUMBER}$`)
const KILLED = new RegExp(`^ended pid=${NUMBER} signal=${NUMBER}$`)
const PONG = new RegExp(`^pong n=${NUMBER}$`)

/** Reads a line of the starter; undefined if it is invalid. */
export function parseStarterReply(line: string): StarterReply | undefined {
  const [n = 0, startedPid = 0] = numbersOf(STARTED, line)
  if (isPid(startedPid)) return { type: 'started', n, pid: startedPid }
  const [exitedPid = 0, status = 0] = numbersOf(EXITED, line)
  if (isPid(exitedPid)) return status > 255 ? undefined : { type: 'ended', pid: exitedPid, status }
  const [killedPid = 0, signal = 0] = numbersOf(KILLED, line)
  if (isPid(killedPid)) return signal > 127 ? undefined : { type: 'ended', pid: killedPid, signal }
  const [failed, errno = 0] = numbersOf(FAILED, line)
  if (failed !== undefined) return { type: 'failed', n: failed, errno }
  if (line === 'ready') return { type: 'ready' }
  const [pong] = numbersOf(PONG, line)
  return pong === undefined ? undefined : { type: 'pong', n: pong }
}

/** Formats a block of strings. Throws TypeError if a string contains a NUL. */
export function formatStrings(strings: readonly (string | Uint8Array)[]): Buffer {
  const octets = strings.every(piece => typeof piece === 'string')
    ? Buffer.from(strings.length === 0 ? '' : `${strings.join('\0')}\0`)
    : Buffer.concat(strings.flatMap(piece => [Buffer.from(piece), NUL]))
  if (countStrings(octets) !== strings.length) throw new TypeError('a NUL cannot stand in a string of a program')
  return octets
}

/** Parses a block of strings; undefined if the last one has no NUL. */
export function parseStrings(block: Buffer): readonly Buffer[] | undefined {
  const strings: Buffer[] = []
  for (let start = 0; start < block.length; ) {
    const end = block.indexOf(0, start)
    if (end < 0) return undefined
    strings.push(block.subarray(start, end))
    start = end + 1
  }
  return strings
}

const NUL = Uint8Array.of(0)

function countStrings(block: Buffer): number {
  let count = 0
  for (let at = block.indexOf(0); at >= 0; at = block.indexOf(0, at + 1)) count += 1
  return count
}

/** True for a number that means one process to kill(2), and not init. */
const isPid = (pid: number): boolean => pid > 1 && pid < 2 ** 31

/** The numbers of a line of this pattern; none for another line. */
const numbersOf = (pattern: RegExp, line: string): readonly number[] => pattern.exec(line)?.slice(1).map(Number) ?? []
