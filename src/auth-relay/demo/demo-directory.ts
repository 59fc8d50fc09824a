/** The directories of the demo's files, which the accounts of its programs can reach. */

import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { messageOf, UsageFault } from '../../base/errors.ts'
import { runtimeOptions } from '../../base/inspector.ts'
import { isRoot } from '../../process/privileges.ts'

/** The directories of the demo's files. Both are absolute and free of symbolic links. */
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
 * Makes the demo's directory. If root starts the demo below a directory that is closed to other
 * accounts, files that must be reachable go to a directory below /var/tmp. That directory is the
 * same one at every start.
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
    // Other accounts pass through the directory to their sockets. Secret files in it have a private
    // mode. The mode of an old directory stays unchanged.
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

/**
 * Every account can write to /var/tmp. So an earlier directory counts only if it is a real
 * directory of root with a name of this form.
 */
function isOurDirectory(path: string): boolean {
  if (!/^\/var\/tmp\/auth-relay-demo-\w{6}$/.test(path)) return false
  const status = lstatSync(path, { throwIfNoEntry: false })
  return status?.isDirectory() === true && status.uid === 0
}

/**
 * True if every account of the host can pass through this directory (or run this program) and
 * through all directories above it.
 */
function isOpenToOthers(path: string): boolean {
  if ((statSync(path).mode & 0o001) === 0) return false
  return path === '/' || isOpenToOthers(dirname(path))
}

/**
 * The words that start the demo's SMTP server. A process without privileges starts it, so Node.js
 * and the program must be reachable for every account. Files in a closed directory are copied below
 * `runtime`, once.
 * @throws UsageFault if the program is not built and would have to be copied.
 */
export function smtpdCommand(script: string, runtime: string): readonly string[] {
  const isBuilt = script.endsWith('.js')
  const place = (path: string, isProgram: boolean): string => {
    const real = realpathSync(path)
    if (!isRoot() || isOpenToOthers(isProgram ? real : dirname(real))) return real
    if (!isProgram && !isBuilt)
      throw new UsageFault(`${dirname(real)} is closed to other accounts: run npm run build first`)
    return copied(real, join(runtime, 'bin'), isProgram ? 0o755 : 0o644)
  }
  return [place(process.execPath, true), ...runtimeOptions([]), place(script, false)]
}

function copied(from: string, directory: string, mode: number): string {
  if (mkdirSync(directory, { recursive: true }) !== undefined) chmodSync(directory, 0o755)
  const to = join(directory, basename(from))
  if (existsSync(to) && isSame(from, to)) return to
  const temporary = `${to}.${process.pid}`
  copyFileSync(from, temporary, constants.COPYFILE_FICLONE)
  chmodSync(temporary, mode)
  renameSync(temporary, to)
  return to
}

/** A valid copy is newer than its original and has the same size. */
function isSame(from: string, to: string): boolean {
  const [source, copy] = [statSync(from), statSync(to)]
  return source.size === copy.size && source.mtimeMs <= copy.mtimeMs
}
