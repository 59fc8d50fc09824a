/**
 * Rights of the accounts of the programs. A process with the ids of the account tries each path, so
 * that ACLs and closed directories count.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, type Stats, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { accountNamed, groupNamed } from '../../libc/accounts.ts'
import { type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import type { Settings } from '../../settings/settings.ts'
import { advice, type Finding, fine, unsafe } from './finding.ts'
import { ourProgram, socketsAt, unitOf } from './processes.ts'
import { hiddenBy, readOnlyBy, SANDBOX_PROPERTIES, type Sandbox, sandboxFindings, sandboxOf } from './sandbox.ts'

export type RightsSurroundings = {
  /** A program of the same installation as authd. */
  readonly script: string
  readonly unit?: (name: string) => UnitFacts | undefined
  /** Directories of the journal. */
  readonly journals?: readonly string[]
}

/**
 * Checks what the accounts of authd and of the gate may open: the FIFO, followed files, the
 * journal, socket directories.
 */
export function checkRights(
  settings: Settings,
  { script, unit = unitFacts, journals = ['/var/log/journal', '/run/log/journal'] }: RightsSurroundings,
): readonly Finding[] {
  // Without root no other account can be tried.
  if (!isRoot()) return []
  const { authd } = settings
  const found = checkSocketDirectories(settings, unit)
  if (authd.syslog_fifo === '' && authd.follow_files.length === 0 && !authd.journal) return found
  const account = accountOfAuthd(settings, script, unit)
  if (account === undefined) return found
  return [
    ...found,
    ...rightsFindings('authd.syslog_fifo', () => checkFifo(authd.syslog_fifo, account)),
    ...authd.follow_files.flatMap(path => rightsFindings('authd.follow_files', () => checkFollowed(path, account))),
    ...(authd.journal
      ? rightsFindings('authd.journal', () => checkJournal(account, unit('auth-relay-authd.service'), journals))
      : []),
  ]
}

/**
 * The account of authd: that of the running process, otherwise that of its setting, otherwise that
 * of its unit.
 */
function accountOfAuthd(
  { authd }: Settings,
  script: string,
  unit: (name: string) => UnitFacts | undefined,
): ProgramAccount | undefined {
  const holders = socketsAt({ kind: 'unix', path: authd.socket }).flatMap(socket => socket.holders)
  const running = holders.find(holder => ourProgram(holder, script) === 'authd')
  const facts = unit('auth-relay-authd.service')
  if (running !== undefined) {
    const account = accountOfProcess(running.pid, authd.user === '' ? 'authd' : authd.user)
    const isOfUnit = unitOf(running.pid) === 'auth-relay-authd.service'
    return account && { ...account, sandbox: isOfUnit ? facts?.sandbox : undefined }
  }
  if (authd.user !== '') {
    try {
      const ids = idsOf(authd.user, 'authd.user')
      return { name: authd.user, ids, groups: facts?.groups ?? [], sandbox: facts?.sandbox }
    } catch {
      return undefined // Another finding reports the missing account.
    }
  }
  return facts === undefined ? undefined : accountOfUnit(facts)
}

function checkFifo(path: string, account: ProgramAccount): readonly Finding[] {
  // Another finding reports the missing FIFO.
  if (path === '' || statOf(path)?.isFIFO() !== true) return []
  const hidden = sandboxFindings('authd.syslog_fifo', account.sandbox, path, 'read', 'authd does not start')
  if (hidden.length > 0) return hidden
  if (mayAccount(account, 'r', path) && mayAccount(account, 'w', path)) return []
  const text = `${account.name} (uid ${account.ids.uid}) cannot read and write ${path}: authd does not start`
  return [unsafe('authd.syslog_fifo', text, `chown ${account.ids.uid} ${path}`)]
}

function checkFollowed(path: string, account: ProgramAccount): readonly Finding[] {
  const about = 'authd.follow_files'
  const hidden = sandboxFindings(about, account.sandbox, path, 'read', 'nothing is granted from it')
  if (hidden.length > 0) return hidden
  const status = statOf(path)
  if (status === undefined)
    return [
      advice(
        about,
        `${path} does not exist`,
        'no action if a daemon will create the file; otherwise correct authd.follow_files',
      ),
    ]
  if (mayAccount(account, 'r', path)) return [fine(about, `${account.name} can read ${path}`)]
  const { uid } = account.ids
  const closed = closedDirectory(account, path)
  if (closed !== undefined) {
    const text = `${account.name} (uid ${uid}) may not enter ${closed}, so it cannot read ${path}: nothing is granted from it`
    return [unsafe(about, text, `setfacl -m u:${uid}:x ${closed}, or let the daemon write its file elsewhere`)]
  }
  const remedy =
    (status.mode & 0o040) !== 0 && status.gid !== 0
      ? `systemctl edit auth-relay-authd, and write under [Service]: SupplementaryGroups=${status.gid}`
      : `let the daemon make the file readable to a group of authd, or: setfacl -m u:${uid}:r ${path}`
  return [unsafe(about, `${account.name} (uid ${uid}) cannot read ${path}: nothing is granted from it`, remedy)]
}

function checkJournal(account: ProgramAccount, facts: UnitFacts | undefined, journals: readonly string[]): Finding[] {
  const about = 'authd.journal'
  const files = journals
    .filter(directory => existsSync(directory))
    .flatMap(directory => readdirSync(directory).map(name => join(directory, name, 'system.journal')))
    .filter(path => existsSync(path))
  if (files.length === 0) return [unsafe(about, 'this host keeps no journal', 'set journal = false, or start journald')]
  const isHidden = facts?.procSubset === 'pid'
  const isClosed = !files.some(path => mayAccount(account, 'r', path))
  if (!isHidden && !isClosed) return [fine(about, `${account.name} can read the journal`)]
  const faults = [
    ...(isClosed ? [`${account.name} (uid ${account.ids.uid}) cannot read ${files[0]}`] : []),
    ...(isHidden ? ['the unit of authd hides /proc/sys from journalctl, which then ends at once'] : []),
  ]
  // The lines of authd-journal.conf.
  const lines = [...(isClosed ? ['SupplementaryGroups=systemd-journal'] : []), ...(isHidden ? ['ProcSubset=all'] : [])]
  return [
    unsafe(
      about,
      `${faults.join('; ')}: nothing is granted from it`,
      `systemctl edit auth-relay-authd, and write under [Service]: ${lines.join(' and, on a separate line, ')}`,
    ),
  ]
}

/**
 * Under their units the gate and the status page are never root: the directories of their sockets
 * must belong to their accounts.
 */
function checkSocketDirectories(
  { wrap, statusPage }: Settings,
  unit: (name: string) => UnitFacts | undefined,
): readonly Finding[] {
  const gate = { unit: 'auth-relay-wrap', owner: 'the gate', usual: '/run/auth-relay/gate' }
  const page = { unit: 'auth-relay-status-page', owner: 'the status page', usual: '/run/auth-relay/status' }
  return [
    { about: 'wrap.policy_listen', addresses: wrap.policy_listen, program: gate },
    { about: 'wrap.socketmap_listen', addresses: wrap.socketmap_listen, program: gate },
    { about: 'wrap.query_listen', addresses: wrap.query_listen, program: gate },
    { about: 'status-page.listen', addresses: [statusPage.listen], program: page },
  ].flatMap(({ about, addresses, program }) =>
    addresses.flatMap(address =>
      address?.kind === 'unix' && socketsAt(address).length === 0
        ? checkSocketDirectory(about, address.path, program, unit(`${program.unit}.service`))
        : [],
    ),
  )
}

function checkSocketDirectory(
  about: string,
  path: string,
  { owner, usual }: { readonly owner: string; readonly usual: string },
  facts: UnitFacts | undefined,
): readonly Finding[] {
  const account = facts && accountOfUnit(facts)
  if (account === undefined) return []
  const directory = dirname(path)
  const consequence = `the unit of ${owner} does not start`
  const remedy = `name a socket in ${usual}`
  return rightsFindings(about, () => {
    const closed = sandboxFindings(about, account.sandbox, directory, 'write', consequence)
    if (closed.length > 0) return closed.map(finding => ({ ...finding, remedy: `${remedy}, or: ${finding.remedy}` }))
    if (mayAccount(account, 'w', directory) && mayAccount(account, 'x', directory)) return []
    const text = `${account.name} cannot make ${path}: ${consequence}`
    return [unsafe(about, text, `${remedy}, or: install -d -o ${account.name} ${directory}`)]
  })
}

const statOf = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false })

/**
 * An account with the supplementary groups of a program, and the file system that its unit shows
 * it.
 */
export type ProgramAccount = {
  readonly name: string
  readonly ids: Ids
  readonly groups: readonly number[]
  readonly sandbox?: Sandbox | undefined
}

/** Properties of a systemd unit; undefined if systemd has no such unit, or does not run. */
export type UnitFacts = {
  readonly user: string
  readonly groups: readonly number[]
  readonly procSubset: string
  readonly sandbox?: Sandbox | undefined
}

/** The kernel could not be queried as that account, so its rights are unknown. */
export class RightsUnknown extends Error {
  override readonly name = 'RightsUnknown'
}

/**
 * True if the account may do this to the path: `r` read it, `w` write to it, `x` search it. A
 * process with the ids of the account tries it, so that ACLs and the directories above the path
 * count. The options of the unit count too. @throws RightsUnknown
 */
export function mayAccount(
  { name, ids, groups, sandbox }: ProgramAccount,
  right: 'r' | 'w' | 'x',
  path: string,
): boolean {
  if (sandbox !== undefined && isClosedBy(sandbox, right, path)) return false
  const words = ['test', `-${right}`, path]
  const list = groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`
  const prefix = isRoot() ? ['setpriv', `--reuid=${ids.uid}`, `--regid=${ids.gid}`, list, '--'] : []
  const [program = 'test', ...rest] = [...prefix, ...words]
  const { status, error, stderr } = spawnSync(program, rest, { cwd: '/', encoding: 'utf8' })
  if (status === 0) return true
  // test(1) exits with 1 for a negative answer. If setpriv or a shell lacks a process, memory or a
  // program, it exits with another status.
  if (status === 1) return false
  const reason = error?.message ?? stderr.trim()
  throw new RightsUnknown(`${path} could not be tested as ${name} (uid ${ids.uid}): ${reason || `status ${status}`}`)
}

/** Special files can be written on a read-only file system. */
const isClosedBy = (sandbox: Sandbox, right: 'r' | 'w' | 'x', path: string): boolean =>
  hiddenBy(sandbox, path) !== undefined ||
  (right === 'w' &&
    readOnlyBy(sandbox, path) !== undefined &&
    (statOf(path)?.isDirectory() === true || statOf(path)?.isFile() === true))

/**
 * The topmost directory above the path that the account may not search; undefined: it reaches the
 * path.
 * @throws RightsUnknown
 */
function closedDirectory(account: ProgramAccount, path: string): string | undefined {
  const parent = dirname(path)
  if (parent === path) return undefined
  return closedDirectory(account, parent) ?? (mayAccount(account, 'x', parent) ? undefined : parent)
}

/**
 * The findings of one thing. If the kernel gave no answer, the finding contains this fact, and its
 * verdict is not `unsafe`.
 */
export function rightsFindings(about: string, check: () => readonly Finding[]): readonly Finding[] {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof RightsUnknown)) throw error
    return [advice(about, error.message, 'run auth-relay check again')]
  }
}

/** The ids and groups that a process has. */
function accountOfProcess(pid: number, name: string): ProgramAccount | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const numbers = (field: string): readonly number[] =>
      (new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '').split(/\s+/).filter(Boolean).map(Number)
    // The second number is the effective id (proc_pid_status(5)).
    const [, uid = 0] = numbers('Uid')
    const [, gid = 0] = numbers('Gid')
    return { name, ids: { uid, gid }, groups: numbers('Groups') }
  } catch {
    return undefined // the process ended meanwhile
  }
}

/** The account of a unit with its groups, as systemd starts it. */
function accountOfUnit({ user, groups, sandbox }: UnitFacts): ProgramAccount | undefined {
  const account = accountWithGroups(user, groups)
  return account && { ...account, sandbox }
}

/** An account with the groups that the host's database gives it, and with others. */
export function accountWithGroups(name: string, others: readonly number[] = []): ProgramAccount | undefined {
  const account = accountNamed(name)
  if (account === undefined) return undefined
  const { stdout } = spawnSync('id', ['-G', name], { encoding: 'utf8' })
  const own = (stdout ?? '').trim().split(/\s+/).filter(Boolean).map(Number)
  return { name, ids: { uid: account.uid, gid: account.gid }, groups: [...new Set([...own, ...others])] }
}

const PROPERTIES = ['LoadState', 'User', 'SupplementaryGroups', 'ProcSubset', ...SANDBOX_PROPERTIES]

/** Properties of a systemd unit with its drop-ins. */
export function unitFacts(unit: string): UnitFacts | undefined {
  const words = ['show', `--property=${PROPERTIES.join(',')}`, unit]
  const { stdout } = spawnSync('systemctl', words, { encoding: 'utf8', timeout: 5000 })
  const facts = new Map(
    (stdout ?? '').split('\n').map((line): [string, string] => {
      const [name = '', ...value] = line.split('=')
      return [name, value.join('=')]
    }),
  )
  if (facts.get('LoadState') !== 'loaded') return undefined
  const names = (facts.get('SupplementaryGroups') ?? '').split(' ').filter(Boolean)
  const groups = names.flatMap(name => (/^\d+$/.test(name) ? Number(name) : (groupNamed(name) ?? [])))
  const procSubset = facts.get('ProcSubset') ?? ''
  return { user: facts.get('User') ?? '', groups, procSubset, sandbox: sandboxOf(unit, facts) }
}
