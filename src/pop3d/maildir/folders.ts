import { type Stats, statSync } from 'node:fs'

/** The status of new/ and of cur/: as long as it stays the same, no file came, went or changed its name. */
export type Folders = readonly [Stats, Stats]

/** Milliseconds for which a directory must have been quiet: its time stamp is too coarse to tell two quick changes. */
const QUIET_TIME = 2_000

/** @throws the system's error if either folder is missing or cannot be looked at. */
export const statFolders = (maildir: string): Folders => [statSync(`${maildir}/new`), statSync(`${maildir}/cur`)]

/** Times are doubles, fine to a quarter of a microsecond: finer than any that QUIET_TIME leaves open. */
export const areSame = (then: Folders, now: Folders): boolean => isSame(then[0], now[0]) && isSame(then[1], now[1])

/** Whether a later change of a folder that was looked at at `now` (Unix milliseconds) shows in its status. */
export const areQuiet = (folders: Folders, now: number): boolean =>
  folders.every(({ mtimeMs }) => now - mtimeMs > QUIET_TIME)

const isSame = (then: Stats, now: Stats): boolean =>
  then.mtimeMs === now.mtimeMs && then.ctimeMs === now.ctimeMs && then.ino === now.ino && then.dev === now.dev
