import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { UsageFault } from '../daemon/exit-status.ts'
import { parseIpAddress } from '../wire/ip-address.ts'
import { berkeleyRecords } from './berkeley-records.ts'
import type { PastLogin } from './record-past-logins.ts'

/** How the grants of another program are written down. */
export type ForeignFormat = {
  readonly doc: string
  /** One line of its file. Undefined: no grant. */
  readonly line?: (line: string, times: Times) => Found | undefined
  /** One record of its Berkeley DB file (hash or btree), in place of lines. */
  readonly record?: (key: string, value: string, times: Times) => Found | undefined
  /** A directory with a file for each address in place of a file with lines. */
  readonly directory?: true
}

/** `now` is for formats without times, `expTime` (milliseconds) for those that note the end of a grant in place of its login. */
type Times = { readonly now: Date; readonly expTime: number }

type Found = { readonly address: string; readonly at: Date; readonly user: string }

const fromUnixTime = (text: string): Date => new Date(Number(text) * 1000)

/** The formats by the names of their programs. Berkeley DB files are read by the system's own db_dump, which knows every version of them. */
export const FORMATS: Readonly<Record<string, ForeignFormat>> = {
  'open-smtp': {
    doc: 'vpopmail roaming users: ADDRESS:allow,… TAB unix time',
    line: line => {
      const [, address, time] = /^([0-9a-fA-F.:]+?):allow,[^\t]*\t(\d{1,12})$/.exec(line) ?? []
      return address === undefined || time === undefined ? undefined : { address, at: fromUnixTime(time), user: '' }
    },
  },
  'relay-ctrl': { doc: 'relay-ctrl: a directory with a file for each address', directory: true },
  relayhosts: {
    doc: 'cPanel antirelayd: one address a line; counts from now',
    line: (line, { now }) => ({ address: line.trim(), at: now, user: '' }),
  },
  'pop-before-smtp': {
    doc: 'its Berkeley DB file, which holds no times: counts from now',
    record: (address, _value, { now }) => ({ address, at: now, user: '' }),
  },
  drac: {
    doc: 'DRAC: dracd.db; each ends when it would have ended there',
    record: (address, value, { now, expTime }) =>
      /^\d{1,12}$/.test(value)
        ? { address, at: new Date(Math.min(now.getTime(), Number(value) * 1000 - expTime)), user: '' }
        : undefined,
  },
  csv: {
    doc: 'ADDRESS,UNIX TIME[,LOGIN]: what any other database can be dumped to',
    line: line => {
      const [, address, time, user] = /^"?([0-9a-fA-F.:]+)"?,"?(\d{1,12})"?(?:,"?([^"]*)"?)?$/.exec(line) ?? []
      return address === undefined || time === undefined
        ? undefined
        : { address, at: fromUnixTime(time), user: user ?? '' }
    },
  },
}

/**
 * Every grant in a file of another program (`-`: standard input), and how many lines were none. A time in the future counts as none.
 * @throws UsageFault if it cannot be read.
 */
export function readForeignGrants(
  format: ForeignFormat,
  path: string,
  times: Times,
): { readonly logins: readonly PastLogin[]; readonly faults: number } {
  const logins: PastLogin[] = []
  let faults = 0
  for (const found of candidates(format, path, times)) {
    const ip = found === undefined ? undefined : parseIpAddress(found.address)
    if (found === undefined || ip === undefined || found.at > times.now) faults += 1
    else logins.push({ ip, at: found.at, user: found.user, daemon: 'import', tls: false, method: 'pass' })
  }
  return { logins, faults }
}

function* candidates(format: ForeignFormat, path: string, times: Times): Generator<Found | undefined> {
  try {
    if (format.record !== undefined) {
      for (const [key, value] of berkeleyRecords(path)) yield format.record(key, value, times)
      return
    }
    if (format.directory === true) {
      for (const name of readdirSync(path)) yield relayCtrlFile(path, name)
      return
    }
    for (const line of readFileSync(path === '-' ? 0 : path, 'utf8').split('\n')) {
      if (line.trim() !== '' && !line.startsWith('#')) yield format.line?.(line.replace(/\r$/, ''), times)
    }
  } catch (error) {
    if (error instanceof UsageFault) throw error
    throw new UsageFault(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`, error)
  }
}

/** Name: the address; time of change: the last login; content: `USER=name` and `DOMAIN=domain`, each ended by NUL. */
function relayCtrlFile(directory: string, name: string): Found | undefined {
  const path = join(directory, name)
  const status = statSync(path)
  if (!status.isFile()) return undefined
  const variables = new Map(
    readFileSync(path, 'utf8')
      .slice(0, 4096)
      .split('\0')
      .map(pair => [pair.split('=', 1)[0] ?? '', pair.slice(pair.indexOf('=') + 1)]),
  )
  const user = variables.get('USER') ?? ''
  const domain = variables.get('DOMAIN') ?? ''
  return { address: name, at: status.mtime, user: domain === '' ? user : `${user}@${domain}` }
}
