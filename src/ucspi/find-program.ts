import { accessSync, constants, statSync } from 'node:fs'

/**
 * Path of the program that a command line names: with a `/` it is itself, else the first executable
 * file on PATH. Undefined if there is
 * none that this user may run.
 */
export function findProgram(name: string, path = '/usr/local/bin:/usr/bin:/bin'): string | undefined {
  const candidates = name.includes('/') ? [name] : path.split(':').map(place => `${place === '' ? '.' : place}/${name}`)
  return candidates.find(isRunnable)
}

function isRunnable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}
