/** Milliseconds since 1970, as Date.now gives them. Passed in wherever time decides something, so that tests own it. */
export type Clock = () => number

/** The machine's clock. */
export const systemClock: Clock = () => Date.now()

/** Milliseconds of a clock that nobody can set, from some beginning: for how long something lasts. */
export const monotonicClock: Clock = () => performance.now()
