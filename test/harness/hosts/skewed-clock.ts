/** libfaketime of the Debian package `faketime`, the variant for programs with threads. */
export const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'

/**
 * Words before a command that set its wall clock ahead by that number of seconds (negative:
 * behind). Monotonic time is unchanged, as on a host whose clock is wrong.
 */
export const skewedClock = (seconds: number): readonly string[] =>
  seconds === 0
    ? []
    : ['env', `LD_PRELOAD=${FAKETIME}`, `FAKETIME=${seconds < 0 ? '' : '+'}${seconds}s`, 'DONT_FAKE_MONOTONIC=1']
