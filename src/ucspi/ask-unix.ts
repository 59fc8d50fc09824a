import { unixExchange } from '../libc/sockets.ts'

/**
 * One line to a Unix socket and the line that comes back; blocks the process. Throws an Error that
 * says what went wrong.
 */
export function askUnix(path: string, line: string, limit: number, timeoutMs: number): string {
  const answer = unixExchange(path, `${line}\n`, limit, timeoutMs)
  const end = answer.indexOf('\n')
  if (end < 0) throw new Error(`${path} closed without an answer`)
  return answer.slice(0, end)
}
