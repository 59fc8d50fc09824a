/**
 * Milliseconds since 1970, as Date.now gives them. Passed in wherever time decides something, so
 * that tests own it.
 */
export type Clock = () => number

/** The machine's clock. */
export const systemClock: Clock = () => Date.now()

/** Milliseconds of the monotonic clock, from an arbitrary beginning: for durations. */
export const monotonicClock: Clock = () => performance.now()
