/** Accounts, groups, and dropping the privileges of root. */
import { UsageFault } from '../base/errors.ts'
import { accountNamed, groupNamed } from '../libc/accounts.ts'
import { loadNativeModule } from '../libc/native-function.ts'
import { forbidDumps } from '../libc/this-process.ts'

/** The ids under which a process runs. */
export type Ids = { readonly uid: number; readonly gid: number }

/** Largest id. The next number means "leave it unchanged" for the kernel. */
const MAX_ID = 0xffff_fffe

/**
 * Ids of an account: a name, a number, or `uid:gid` for hosts without such an account.
 * @throws UsageFault if the host has no such account; `setting` is the name for the message.
 */
export function idsOf(account: string, setting: string): Ids {
  const numbers = /^(?<uid>\d{1,10})(?::(?<gid>\d{1,10}))?$/.exec(account)?.groups
  if (numbers !== undefined) {
    const uid = Number(numbers['uid'])
    const gid = Number(numbers['gid'] ?? uid)
    if (Math.max(uid, gid) > MAX_ID)
      throw new UsageFault({ fact: `${account} is not an account number`, remedy: `change ${setting}` })
    return { uid, gid }
  }
  const found = accountNamed(account)
  if (found === undefined) {
    throw new UsageFault({
      fact: `the account ${account} does not exist`,
      remedy: `create it (useradd --system ${account}) or change ${setting}`,
    })
  }
  return { uid: found.uid, gid: found.gid }
}

/**
 * Prevents other processes of this account from tracing this one, reading its memory, and making it
 * leave a core file. Without root, this process then cannot read its own environment in /proc, so
 * call `ownEnvironment` first.
 */
export const forbidInspection = (): void => forbidDumps()

/** True if the host has an account of this name. */
export const hasAccount = (name: string): boolean => accountNamed(name) !== undefined

/**
 * Id of a group: a name or a number.
 * @throws UsageFault if the host has no such group; `setting` is the name for the message.
 */
export function gidOf(group: string, setting: string): number {
  const gid = /^\d{1,10}$/.test(group) ? Number(group) : groupNamed(group)
  if (gid === undefined || gid > MAX_ID)
    throw new UsageFault({
      fact: `the group ${group} does not exist`,
      remedy: `create it (groupadd --system ${group}) or change ${setting}`,
    })
  return gid
}

/** User ids of the accounts. Accounts that this host does not have are left out. */
export const knownUids = (accounts: readonly string[]): readonly number[] =>
  accounts.flatMap(account => (/^\d{1,10}$/.test(account) ? Number(account) : (accountNamed(account)?.uid ?? [])))

/** True if this process may take other ids. */
export const isRoot = (): boolean => process.geteuid?.() === 0

/**
 * Drops root permanently: sets the supplementary groups (only those given), then gid, then uid,
 * then checks that the process cannot return. Loads the native module first, because the account
 * may not be able to read its file. Does nothing else when the process already has these ids.
 */
export function dropPrivileges({ uid, gid }: Ids, groups: readonly number[] = []): void {
  loadNativeModule()
  if (process.getuid?.() === uid && process.getgid?.() === gid && !isRoot()) return
  process.setgroups?.([...groups])
  process.setgid?.(gid)
  process.setuid?.(uid)
  if (uid !== 0 && canBecomeRoot()) throw new Error('privileges were not dropped')
}

function canBecomeRoot(): boolean {
  try {
    process.setuid?.(0)
    return true
  } catch {
    return false // EPERM: the process cannot return to root, as intended
  }
}
