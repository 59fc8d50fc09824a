import { chmodSync, constants, copyFileSync, existsSync, mkdirSync, realpathSync, renameSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { UsageFault } from '../../base/exit-status.ts'
import { runtimeOptions } from '../../base/runtime-options.ts'
import { isRoot } from '../../process/privileges.ts'
import { isOpenToOthers } from './open-to-others.ts'

/**
 * The words that start the demo's SMTP server. It is started by a process without privileges, so
 * Node.js and the program must be
 * reachable to every account: what lies in a closed directory is copied below `runtime`, once.
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

/** A copy is newer than what it was made from, and as long. */
function isSame(from: string, to: string): boolean {
  const [source, copy] = [statSync(from), statSync(to)]
  return source.size === copy.size && source.mtimeMs <= copy.mtimeMs
}
