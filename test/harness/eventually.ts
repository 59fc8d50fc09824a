import { setTimeout as pause } from 'node:timers/promises'
import { countAssertion } from './runner/assertion-count.ts'

const FIRST_PAUSE_MS = 5
/** Many probes read all of /proc or query the database, so a long wait has few of them. */
const LONGEST_PAUSE_MS = 50
const PAUSE_GROWTH = 1.3

/**
 * Calls `probe` until it returns a value other than undefined or false. After the deadline it
 * throws the last error of `probe`, or one that names the deadline.
 */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = 30_000,
  longestPauseMs = LONGEST_PAUSE_MS,
): Promise<T> {
  const end = Date.now() + deadlineMs
  let pauseMs = FIRST_PAUSE_MS
  let lastError: unknown
  for (;;) {
    try {
      const answer = await probe()
      if (answer !== undefined && answer !== false) {
        countAssertion()
        return answer
      }
      lastError = undefined
    } catch (error) {
      lastError = error
    }
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`, { cause: lastError })
    await pause(pauseMs)
    pauseMs = Math.min(pauseMs * PAUSE_GROWTH, longestPauseMs)
  }
}
