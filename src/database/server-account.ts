import { lchown, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { EmbeddedServerFault } from './errors.ts'

/** Ids under which the embedded server runs. */
export type ServerAccount = { readonly uid: number; readonly gid: number }

/** First of these that the host has: PostgreSQL wants an account with a name, and refuses root. */
const ACCOUNTS = ['auth-relay-db', 'auth-relay', 'nobody']

/** The account for the embedded server, or undefined when we are not root and it runs as ourselves. */
export async function serverAccount(): Promise<ServerAccount | undefined> {
  if (process.geteuid?.() !== 0) return undefined
  const accounts = new Map<string, ServerAccount>()
  for (const line of (await readFile('/etc/passwd', 'utf8')).split('\n')) {
    const [name = '', , uid = '', gid = ''] = line.split(':')
    if (/^\d+$/.test(uid) && /^\d+$/.test(gid)) accounts.set(name, { uid: Number(uid), gid: Number(gid) })
  }
  for (const name of ACCOUNTS) {
    const account = accounts.get(name)
    if (account !== undefined && account.uid !== 0) return account
  }
  throw new EmbeddedServerFault(
    `PostgreSQL refuses to run as root and this host has none of the accounts ${ACCOUNTS.join(', ')}: useradd --system auth-relay`,
  )
}

/** True if the account may pass through every directory above and including `path`; what does not exist yet is ours to make. */
export async function canReach(path: string, { uid, gid }: ServerAccount): Promise<boolean> {
  for (let directory = path; ; directory = dirname(directory)) {
    const found = await stat(directory).catch(() => undefined)
    if (found !== undefined) {
      const shift = found.uid === uid ? 6 : found.gid === gid ? 3 : 0
      if (((found.mode >> shift) & 0o1) === 0) return false
    }
    if (directory === dirname(directory)) return true
  }
}

/** Gives a path to the server's account. */
export async function giveTo(path: string, account: ServerAccount | undefined): Promise<void> {
  if (account !== undefined) await lchown(path, account.uid, account.gid)
}
