import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { UsageFault } from '../../base/exit-status.ts'

/** The reader of Berkeley DB files that comes with the database itself, under the names that systems give it. */
const PROGRAMS = ['db_dump', 'db5.3_dump', 'db_dump-5.3', 'db48_dump']

const MAX_OUTPUT = 1 << 30

/**
 * Key and value of each record of a Berkeley DB file, as text. A NUL at their ends, which Postfix's
 * own maps have, is cut off.
 * @throws UsageFault if there is no db_dump, or it cannot read the file.
 */
export function* berkeleyRecords(path: string): Generator<readonly [key: string, value: string]> {
  accessSync(path, constants.R_OK)
  const lines = dump(path).split('\n')
  const data = lines.slice(lines.indexOf('HEADER=END') + 1, lines.indexOf('DATA=END'))
  for (let i = 0; i + 1 < data.length; i += 2) yield [textOf(data[i] ?? ''), textOf(data[i + 1] ?? '')]
}

/** What db_dump prints: a header, then keys and values in turn, a line each, in hexadecimal after a space. */
function dump(path: string): string {
  for (const program of PROGRAMS) {
    const { stdout, stderr, status, error } = spawnSync(program, [path], { encoding: 'latin1', maxBuffer: MAX_OUTPUT })
    if (error !== undefined && 'code' in error && error.code === 'ENOENT') continue
    if (status === 0 && stdout.includes('\nDATA=END')) return stdout
    throw new UsageFault(
      `${program} cannot read ${path}: ${error?.message ?? stderr.trim().replaceAll(/\s*\n\s*/g, '; ')}`,
      error,
    )
  }
  throw new UsageFault(`${path} is read by ${PROGRAMS[0]}, which this host has not: apt-get install db-util`)
}

const textOf = (line: string): string => Buffer.from(line.trim(), 'hex').toString('utf8').replace(/\0$/, '')
