import { writeSync } from 'node:fs'

/**
 * Writes log lines to standard error, those of one turn of the event loop together: a gate has two
 * for every connection. `flush` before the
 * process ends. A standard error that is full or closed loses lines rather than connections.
 */
export function batchedLines(): { write(line: string): void; flush(): void } {
  let lines = ''
  const flush = (): void => {
    const batch = lines
    lines = ''
    try {
      if (batch !== '') writeSync(2, batch)
    } catch {
      // EAGAIN or EPIPE: the reader of the log is slow or gone.
    }
  }
  return {
    write(line) {
      if (lines === '') setImmediate(flush)
      lines += line
    },
    flush,
  }
}
