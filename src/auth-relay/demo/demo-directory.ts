import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../../base/errors.ts'
import { UsageFault } from '../../base/exit-status.ts'
import { isRoot } from '../../process/privileges.ts'
import { isOpenToOthers } from './open-to-others.ts'

/** Where the demo keeps its files. Both are absolute and free of symbolic links. */
export type DemoDirectory = {
  /** Settings, keys and secrets: read before privileges are dropped. */
  readonly dir: string
  /**
   * Sockets, maildrop and database: processes under other accounts must reach them. The same as
   * `dir` where that is open.
   */
  readonly runtime: string
}

/** Names the run-time directory of an earlier start, in `dir`. */
const RECORD = 'runtime-directory'

/**
 * Makes the demo's directory. Started as root below a directory that is closed to others, what must
 * be reachable goes to a directory
 * below /var/tmp, the same one at every start.
 * @throws UsageFault if the directory cannot be made.
 */
export function openDemoDirectory(wanted: string): DemoDirectory {
  const dir = makeDirectory(wanted)
  if (!isRoot()) return { dir, runtime: dir }
  if (isOpenToOthers(dir)) return { dir, runtime: dir }
  const record = join(dir, RECORD)
  const earlier = recorded(record)
  if (earlier !== undefined && isOurDirectory(earlier)) return { dir, runtime: earlier }
  const runtime = mkdtempSync('/var/tmp/auth-relay-demo-')
  chmodSync(runtime, 0o755)
  writeFileSync(record, `${runtime}\n`)
  return { dir, runtime }
}

function makeDirectory(wanted: string): string {
  try {
    const isNew = mkdirSync(wanted, { recursive: true }) !== undefined
    // Other accounts pass through it to their sockets; what is secret in it has a mode of its own.
    // An old directory stays as it is.
    if (isNew) chmodSync(wanted, 0o755)
    return realpathSync(wanted)
  } catch (error) {
    const why = messageOf(error)
    throw new UsageFault(`cannot make the directory ${wanted}: ${why}: choose another with --dir`, error)
  }
}

function recorded(record: string): string | undefined {
  try {
    return readFileSync(record, 'utf8').trim()
  } catch {
    return undefined // the first start: nothing is recorded
  }
}

/** /var/tmp belongs to everybody: only a real directory of root's, under the name we give, is trusted again. */
function isOurDirectory(path: string): boolean {
  if (!/^\/var\/tmp\/auth-relay-demo-\w{6}$/.test(path)) return false
  const status = lstatSync(path, { throwIfNoEntry: false })
  return status?.isDirectory() === true && status.uid === 0
}
