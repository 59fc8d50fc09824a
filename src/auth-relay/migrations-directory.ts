import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { UsageFault } from '../daemon/exit-status.ts'

/**
 * Where the numbered SQL files are, seen from our own program file: beside `dist/`, or beside `src/`.
 * @throws UsageFault if the installation has none.
 */
export function migrationsDirectory(running = process.argv[1] ?? ''): string {
  const above = dirname(dirname(running))
  const found = [join(above, 'sql'), join(dirname(above), 'sql')].find(directory => existsSync(directory))
  if (found !== undefined) return found
  throw new UsageFault(`${above} has no directory sql: install auth-relay again`)
}
