/** libfaketime of the Debian package `faketime`, for programs with threads. */
export const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'

/**
 * Words before a command whose wall clock is to be ahead by that many seconds (behind: negative).
 * Monotonic time is left alone, as on a host whose clock is wrong.
 */
export const skewedClock = (seconds: number): readonly string[] =>
  seconds === 0
    ? []
    : ['env', `LD_PRELOAD=${FAKETIME}`, `FAKETIME=${seconds < 0 ? '' : '+'}${seconds}s`, 'DONT_FAKE_MONOTONIC=1']
