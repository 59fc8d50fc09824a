import { setTimeout as pause } from 'node:timers/promises'
import { countAssertion } from './assertion-count.ts'

/**
 * Calls `probe` until it returns a value other than undefined or false. After the deadline it
 * throws the last error of `probe`, or one that names the deadline.
 */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = 30_000,
  pauseMs = 10,
): Promise<T> {
  const end = Date.now() + deadlineMs
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
  }
}
