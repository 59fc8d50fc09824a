/** Deadlines of statements: by a time limit, by the caller, and in a race with a promise. */

/** `clear` removes the timer and the listener. */
export type Deadline = { readonly signal: AbortSignal; clear(): void }

/** Aborts at the caller's signal or at the time limit: at the one that comes first. */
export function deadlineOf(outer: AbortSignal | undefined, limitMs: number): Deadline {
  const inner = new AbortController()
  const abort = (): void => inner.abort(outer?.reason)
  const timer = setTimeout(() => inner.abort(new Error(`no answer within ${limitMs} ms`)), limitMs)
  if (outer?.aborted === true) abort()
  outer?.addEventListener('abort', abort, { once: true })
  return {
    signal: inner.signal,
    clear(): void {
      clearTimeout(timer)
      outer?.removeEventListener('abort', abort)
    },
  }
}

/** The promise, or the signal's reason if it is first; `discard` gets a late result. */
export function raced<T>(signal: AbortSignal, promise: T | Promise<T>, discard?: (late: T) => void): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    Promise.resolve(promise).then(
      value => {
        signal.removeEventListener('abort', onAbort)
        if (signal.aborted) discard?.(value)
        else resolve(value)
      },
      (error: unknown) => {
        signal.removeEventListener('abort', onAbort)
        reject(error)
      },
    )
  })
}
