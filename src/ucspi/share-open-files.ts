import { openFilesLimit, setOpenFilesLimit } from '../libc/this-process.ts'
import { softOpenFilesOf } from './run-next.ts'

/** What supervisors give as a rule, should ours not be readable. */
const USUAL = 1024n

/**
 * Sets our soft limit of open files back to what we were started with, because every program we run
 * inherits it and old ones close each possible descriptor one by
 * one; but not below what we need ourselves, and to the hard limit if nobody knows what that is.
 * The runtime has raised it to the hard limit at start.
 */
export function shareOpenFilesLimit(needed: number | undefined): number {
  const { soft, hard } = openFilesLimit()
  const given = softOpenFilesOf(process.ppid) ?? USUAL
  const wanted = needed === undefined ? hard : given > BigInt(needed) ? given : BigInt(needed)
  const possible = wanted < hard ? wanted : hard
  if (possible !== soft) setOpenFilesLimit(possible)
  return Number(possible)
}

/** The same limit in a process that starts programs for us. */
export function limitOpenFiles(files: number): void {
  if (BigInt(files) !== openFilesLimit().soft) setOpenFilesLimit(BigInt(files))
}
