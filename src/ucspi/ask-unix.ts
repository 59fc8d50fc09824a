/** One query to a Unix socket, for a program that does nothing else and must start fast. */
import { unixExchange } from '../libc/sockets.ts'

/**
 * Sends a line to a Unix socket and returns the reply line, both without LF. Blocks the process.
 * `limit`: longest reply in octets. Throws an Error that describes the failure.
 */
export function askUnix(path: string, line: string, limit: number, timeoutMs: number): string {
  const answer = unixExchange(path, `${line}\n`, limit, timeoutMs)
  const end = answer.indexOf('\n')
  if (end < 0) throw new Error(`${path} closed without an answer`)
  return answer.slice(0, end)
}
