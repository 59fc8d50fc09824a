/**
 * Milliseconds since 1970, as from Date.now. A clock is an argument of code that depends on time,
 * so that tests control it.
 */
export type Clock = () => number

/** The machine's clock. */
export const systemClock: Clock = () => Date.now()

/** Milliseconds of the monotonic clock, from an arbitrary beginning: for durations. */
export const monotonicClock: Clock = () => performance.now()
