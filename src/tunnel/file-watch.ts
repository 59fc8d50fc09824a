import { statSync } from 'node:fs'

/** How often files are looked at, in milliseconds. */
const INTERVAL = 5000

/**
 * Calls `changed` when one of the files is another one or has another content, and the files have
 * been left alone for one interval, so
 * that a certificate and its key are read as a pair. Looking beats listening here: certbot changes
 * a symbolic link in a path, which
 * inotify does not report. Returns how to stop.
 */
export function watchFiles(files: readonly string[], changed: () => void, interval = INTERVAL): () => void {
  let known = stateOf(files)
  let seen = known
  const timer = setInterval(() => {
    const now = stateOf(files)
    const isStable = now === seen
    seen = now
    if (isStable && now !== known) {
      known = now
      changed()
    }
  }, interval)
  return () => clearInterval(timer)
}

const stateOf = (files: readonly string[]): string =>
  files
    .map(file => {
      const status = statSync(file, { bigint: true, throwIfNoEntry: false })
      return status === undefined
        ? 'missing'
        : `${status.dev}:${status.ino}:${status.size}:${status.mtimeNs}:${status.mode}`
    })
    .join()
