/** Checks of the addresses on which the settings make a program listen. */
import { spawnSync } from 'node:child_process'
import { lstatSync } from 'node:fs'
import { createServer } from 'node:net'
import { TemporaryFault, UsageFault } from '../../base/errors.ts'
import { accountWithUid } from '../../libc/accounts.ts'
import { openListener } from '../../process/listener.ts'
import { isRoot, knownUids } from '../../process/privileges.ts'
import { formatSocketAddress, type SocketAddress } from '../../process/socket-address.ts'
import type { Settings } from '../../settings/settings.ts'
import type { PartsInUse } from '../stack/plan.ts'
import { type PlannedSocket, plannedSockets } from '../stack/plan.ts'
import { type Finding, fine, unsafe, unsafeBecause } from './finding.ts'
import { type HeldSocket, type Holder, ourProgram, socketsAt } from './processes.ts'

/** Inputs of the check besides the settings. */
export type ListenerSurroundings = {
  /** A program of the same installation as the daemons. */
  readonly script: string
  readonly heldByUnit?: (address: SocketAddress) => string | undefined
}

/**
 * Checks every address on which the settings make a program listen: it is free, used by auth-relay,
 * or used by another program.
 */
export async function checkListeners(
  settings: Settings,
  parts: PartsInUse,
  { script, heldByUnit = unitOfSocket }: ListenerSurroundings,
): Promise<readonly Finding[]> {
  const found: Finding[] = []
  const accounts = accountsOf(settings)
  let free = 0
  for (const planned of plannedSockets(settings, parts)) {
    const faults = await faultsOf(planned)
    if (faults.length === 0) {
      free += 1
      continue
    }
    const sockets = socketsAt(planned.address)
    if (sockets.length === 0) found.push(...faults)
    else found.push(checkHeld(planned, sockets, holder => programOf(holder, script, accounts), heldByUnit))
  }
  return free === 0
    ? found
    : [...found, fine('listeners', found.length === 0 ? 'every port is free' : `${free} more free`)]
}

/**
 * The reasons why a server cannot listen there now; none if it can. A Unix socket is inspected
 * and not bound.
 */
async function faultsOf({ address, setting }: PlannedSocket): Promise<readonly Finding[]> {
  if (address.kind === 'unix') {
    const status = lstatSync(address.path, { throwIfNoEntry: false })
    if (status === undefined) return []
    if (!status.isSocket()) return [unsafe(setting, `${address.path} is not a socket`, `move it, or change ${setting}`)]
    return socketsAt(address).length === 0 ? [] : [unsafe(setting, `${address.path} is in use`, `change ${setting}`)]
  }
  const server = createServer()
  try {
    await openListener(server, address, setting)
    await new Promise(resolve => server.close(resolve))
    return []
  } catch (error) {
    if (!(error instanceof UsageFault || error instanceof TemporaryFault)) throw error
    return unsafeBecause(setting, error)
  }
}

function checkHeld(
  { address, setting, program }: PlannedSocket,
  sockets: readonly HeldSocket[],
  programOfHolder: (holder: Holder) => string | undefined,
  heldByUnit: (address: SocketAddress) => string | undefined,
): Finding {
  const where = formatSocketAddress(address)
  for (const { holders } of sockets) {
    if (holders.some(holder => programOfHolder(holder) === program)) continue
    const [holder] = holders
    if (holder === undefined) {
      return isRoot()
        ? unsafe(setting, `${where} is in use, and no process of this host shows its socket`, `change ${setting}`)
        : unsafe(setting, `${where} is in use by another account`, 'run auth-relay check as root: it names the program')
    }
    if (holder.pid === 1) {
      const unit = heldByUnit(address)
      if (unit?.startsWith('auth-relay-') === true) continue
      if (unit !== undefined) return inTheWay(setting, where, unit, `systemctl disable --now ${unit}`)
    }
    const account = accountWithUid(holder.uid)?.name ?? `uid ${holder.uid}`
    const name = programOfHolder(holder) ?? holder.name
    return inTheWay(setting, where, `${name} (pid ${holder.pid}, account ${account})`, remedyFor(setting))
  }
  return fine(setting, `${program} listens on ${where}`)
}

const inTheWay = (setting: string, where: string, holder: string, remedy: string): Finding =>
  unsafe(setting, `${where} is held by ${holder}`, remedy)

const remedyFor = (setting: string): string =>
  setting === DEFAULT_TLS
    ? 'stop that program, name other addresses in sslwrap.listener, or do not enable auth-relay-sslwrap'
    : `stop that program, or change ${setting}`

/** The setting of *:995, which no setting names. */
const DEFAULT_TLS = 'sslwrap.listener'

/**
 * The accounts under which the programs run. Another account could run them with other settings.
 */
function accountsOf({ popup, sslwrap, authd, wrap, statusPage }: Settings): ReadonlySet<number> {
  const named = [popup.login_user, sslwrap.user, authd.user, wrap.user, statusPage.user, 'auth-relay']
  // An account may be written UID:GID.
  return new Set([0, process.geteuid?.() ?? 0, ...knownUids(named.map(name => name.replace(/^(\d+):\d+$/, '$1')))])
}

const programOf = (holder: Holder, script: string, accounts: ReadonlySet<number>): string | undefined =>
  accounts.has(holder.uid) ? ourProgram(holder, script) : undefined

/** The socket unit that systemd holds an address for. */
function unitOfSocket(address: SocketAddress): string | undefined {
  const { stdout } = spawnSync('systemctl', ['list-sockets', '--no-legend', '--full'], {
    encoding: 'utf8',
    timeout: 5000,
  })
  // systemd may write the address in another form, so compare the port, which pid 1 holds.
  const places = address.kind === 'tcp' ? [`:${address.port} `] : [address.kind === 'unix' ? `${address.path} ` : '\n']
  return (stdout ?? '')
    .split('\n')
    .find(line => places.some(place => line.includes(place)))
    ?.trim()
    .split(/\s+/)[1]
}
