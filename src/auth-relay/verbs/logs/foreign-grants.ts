/** The files in which other POP-before-SMTP programs keep their grants. */

import { spawnSync } from 'node:child_process'
import { accessSync, constants, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errorCodeOf, messageOf, UsageFault } from '../../../base/errors.ts'
import { parseIpAddress } from '../../../wire/ip-address.ts'
import type { PastLogin } from './past-logins.ts'

/** A format in which another program stores its grants. */
export type ForeignFormat = {
  readonly doc: string
  /** One line of its file. Undefined: the line has no grant. */
  readonly line?: (line: string, times: Times) => Found | undefined
  /** One record of its Berkeley DB file (hash or btree), in place of lines. */
  readonly record?: (key: string, value: string, times: Times) => Found | undefined
  /** A directory with a file for each address in place of a file with lines. */
  readonly directory?: true
}

/**
 * `now` is for formats without times. `expTime` (milliseconds) is for formats that store the end of
 * a grant in place of its login.
 */
type Times = { readonly now: Date; readonly expTime: number }

type Found = { readonly address: string; readonly at: Date; readonly user: string }

/** Unix seconds, with the fraction that `extract(epoch …)` gives. */
const UNIX_TIME = String.raw`\d{1,12}(?:\.\d{1,9})?`
const fromUnixTime = (text: string): Date => new Date(Number(text) * 1000)

const OPEN_SMTP = new RegExp(`^([0-9a-fA-F.:]+?):allow,[^\t]*\t(${UNIX_TIME})$`)
const CSV = new RegExp(`^"?([0-9a-fA-F.:]+)"?\\s*,\\s*"?(${UNIX_TIME})"?(?:\\s*,\\s*"?([^"]*)"?)?$`)

/**
 * The formats by the names of their programs. Berkeley DB files are read by the system's own
 * db_dump, which reads every version of them.
 */
export const FORMATS: Readonly<Record<string, ForeignFormat>> = {
  'open-smtp': {
    doc: 'vpopmail roaming users: ADDRESS:allow,… TAB unix time',
    line: line => {
      const [, address, time] = OPEN_SMTP.exec(line) ?? []
      return address === undefined || time === undefined ? undefined : { address, at: fromUnixTime(time), user: '' }
    },
  },
  'relay-ctrl': { doc: 'relay-ctrl: a directory with a file for each address', directory: true },
  relayhosts: {
    doc: 'cPanel antirelayd: one address a line; counts from now',
    line: (line, { now }) => ({ address: line.trim(), at: now, user: '' }),
  },
  'pop-before-smtp': {
    doc: 'its Berkeley DB file, which has no times: counts from now',
    record: (address, _value, { now }) => ({ address, at: now, user: '' }),
  },
  drac: {
    doc: 'DRAC: dracd.db; each grant keeps the end that DRAC gave it',
    record: (address, value, { now, expTime }) =>
      new RegExp(`^${UNIX_TIME}$`).test(value)
        ? { address, at: new Date(Math.min(now.getTime(), Number(value) * 1000 - expTime)), user: '' }
        : undefined,
  },
  csv: {
    doc: 'ADDRESS,UNIX TIME[,LOGIN]: an export of any other database',
    line: line => {
      const [, address, time, user] = CSV.exec(line) ?? []
      return address === undefined || time === undefined
        ? undefined
        : { address, at: fromUnixTime(time), user: user ?? '' }
    },
  },
}

/**
 * An entry without a grant: its line, or its place in a directory or database, from 1 on; and its
 * text.
 */
export type ForeignFault = { readonly n: number; readonly text: string }

/** Faults that are kept with their text; further ones are only counted. */
const MAX_SAMPLES = 10
const MAX_SAMPLE = 80

/**
 * Every grant in a file of another program (`-`: standard input), and the number of invalid entries
 * with samples of them. A time in the future and a login that cannot be stored are invalid.
 * @throws UsageFault if the file cannot be read.
 */
export function readForeignGrants(
  format: ForeignFormat,
  path: string,
  times: Times,
): { readonly logins: readonly PastLogin[]; readonly faults: number; readonly samples: readonly ForeignFault[] } {
  const logins: PastLogin[] = []
  const samples: ForeignFault[] = []
  let faults = 0
  for (const { n, text, found } of candidates(format, path, times)) {
    const ip = found === undefined ? undefined : parseIpAddress(found.address)
    if (found === undefined || ip === undefined || found.at > times.now || !canBeStored(found.user)) {
      faults += 1
      if (samples.length < MAX_SAMPLES) samples.push({ n, text: text.slice(0, MAX_SAMPLE) })
    } else logins.push({ ip, at: found.at, user: found.user, daemon: 'import', tls: false, method: 'pass' })
  }
  return { logins, faults, samples }
}

/** The database refuses other names, and with them all logins of the same statement. */
const canBeStored = (user: string): boolean => user.length <= MAX_LOGIN && !user.includes('\0')
const MAX_LOGIN = 255

type Candidate = ForeignFault & { readonly found: Found | undefined }

function* candidates(format: ForeignFormat, path: string, times: Times): Generator<Candidate> {
  let n = 0
  try {
    if (format.record !== undefined) {
      for (const [key, value] of berkeleyRecords(path)) {
        n += 1
        yield { n, text: `${key} ${value}`, found: format.record(key, value, times) }
      }
      return
    }
    if (format.directory === true) {
      for (const name of readdirSync(path)) {
        n += 1
        yield { n, text: name, found: relayCtrlFile(path, name) }
      }
      return
    }
    for (const line of readFileSync(path === '-' ? 0 : path, 'utf8').split('\n')) {
      n += 1
      // Users type blanks around a line, and psql pads its output.
      const text = line.replace(/^[ \t]+|[ \r]+$/g, '')
      if (text !== '' && !text.startsWith('#')) yield { n, text, found: format.line?.(text, times) }
    }
  } catch (error) {
    if (error instanceof UsageFault) throw error
    throw new UsageFault(`cannot read ${path}: ${messageOf(error)}`, error)
  }
}

/**
 * Name: the address; time of change: the last login; content: `USER=name` and `DOMAIN=domain`, each
 * ended by NUL.
 */
function relayCtrlFile(directory: string, name: string): Found | undefined {
  const path = join(directory, name)
  // relay-ctrl-age may remove the file meanwhile.
  const status = statSync(path, { throwIfNoEntry: false })
  if (status?.isFile() !== true) return undefined
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

/**
 * The reader of Berkeley DB files that comes with the database itself, under the names that systems
 * give it.
 */
const PROGRAMS = ['db_dump', 'db5.3_dump', 'db_dump-5.3', 'db48_dump']

const MAX_OUTPUT = 1 << 30

/**
 * Key and value of each record of a Berkeley DB file, as text. A NUL at their ends, which Postfix's
 * own maps have, is cut off.
 * @throws UsageFault if there is no db_dump, or it cannot read the file.
 */
function* berkeleyRecords(path: string): Generator<readonly [key: string, value: string]> {
  accessSync(path, constants.R_OK)
  const lines = dump(path).split('\n')
  const data = lines.slice(lines.indexOf('HEADER=END') + 1, lines.indexOf('DATA=END'))
  for (let i = 0; i + 1 < data.length; i += 2) yield [textOf(data[i] ?? ''), textOf(data[i + 1] ?? '')]
}

/**
 * The output of db_dump: a header, then keys and values in turn, a line each, in hexadecimal after
 * a space.
 */
function dump(path: string): string {
  for (const program of PROGRAMS) {
    const { stdout, stderr, status, error } = spawnSync(program, [path], { encoding: 'latin1', maxBuffer: MAX_OUTPUT })
    if (errorCodeOf(error) === 'ENOENT') continue
    if (status === 0 && stdout.includes('\nDATA=END')) return stdout
    throw new UsageFault(
      `${program} cannot read ${path}: ${error?.message ?? stderr.trim().replaceAll(/\s*\n\s*/g, '; ')}`,
      error,
    )
  }
  throw new UsageFault(`reading ${path} needs ${PROGRAMS[0]}, which is not installed: apt-get install db-util`)
}

const textOf = (line: string): string => Buffer.from(line.trim(), 'hex').toString('utf8').replace(/\0$/, '')
