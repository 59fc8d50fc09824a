import { setTimeout as pause } from 'node:timers/promises'
import { countAssertion } from './assertion-count.ts'

/**
 * Asks again until `probe` answers something other than undefined or false, or the deadline passes
 * (then the last error, or a clear one).
 */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = 15_000,
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
