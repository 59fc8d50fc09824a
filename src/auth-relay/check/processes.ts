/**
 * Processes of this host: the holders of listening sockets, and the programs of auth-relay that
 * run.
 */

import { readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { endianness } from 'node:os'
import { basename, dirname, resolve } from 'node:path'
import type { SocketAddress } from '../../process/socket-address.ts'
import { SETTINGS_FILE } from '../../settings/settings.ts'
import { parseIpAddress, readAddress } from '../../wire/ip-address.ts'

/** A process that has a listening socket. */
export type Holder = {
  readonly pid: number
  readonly uid: number
  /** Its program and words, e.g. `/usr/bin/node`, `/usr/lib/auth-relay/dist/popup.js`. */
  readonly words: readonly string[]
  /** Name of the program as ps(1) shows it. */
  readonly name: string
}

/**
 * A socket that listens at an address, and the processes that have it. Without root those of other
 * accounts stay unknown.
 */
export type HeldSocket = { readonly holders: readonly Holder[] }

const LISTENING = '0A'
/** `__SO_ACCEPTCON` of /proc/net/unix: the socket listens. */
const ACCEPTS = 0x10000
const WILDCARDS: ReadonlySet<string> = new Set(['0.0.0.0', '::'])

/** The listening sockets of this host that keep a server from binding the address. */
export function socketsAt(address: SocketAddress, proc = '/proc'): readonly HeldSocket[] {
  const inodes =
    address.kind === 'tcp'
      ? ['tcp', 'tcp6'].flatMap(name => tcpInodes(`${proc}/net/${name}`, address))
      : address.kind === 'unix'
        ? unixInodes(`${proc}/net/unix`, address.path)
        : []
  const holders = holdersOf(new Set(inodes), proc)
  return inodes.map(inode => ({ holders: holders.get(inode) ?? [] }))
}

/**
 * Lines of a table of the kernel below its heading; empty where there is no such table (a kernel
 * without IPv6).
 */
function rowsOf(path: string): readonly (readonly string[])[] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .slice(1)
      .map(line => line.trim().split(/\s+/))
  } catch {
    return []
  }
}

function tcpInodes(path: string, { host, port }: { readonly host: string; readonly port: number }): string[] {
  const wanted = plain(host === 'localhost' ? '127.0.0.1' : host)
  return rowsOf(path).flatMap(([, local = '', , state, , , , , , inode]) => {
    const [hex = '', hexPort = ''] = local.split(':')
    if (state !== LISTENING || inode === undefined || Number.parseInt(hexPort, 16) !== port) return []
    const bound = kernelAddress(hex)
    const overlaps = bound === wanted || WILDCARDS.has(bound) || WILDCARDS.has(wanted)
    return overlaps ? [inode] : []
  })
}

/** An address of the kernel's tables: words of 32 bits in the byte order of the machine. */
function kernelAddress(hex: string): string {
  const octets = Buffer.from(hex, 'hex')
  return plain(readAddress(endianness() === 'LE' ? octets.swap32() : octets))
}

/** One spelling of an address. A name stays what it is. */
const plain = (host: string): string => parseIpAddress(host) ?? host

const unixInodes = (path: string, wanted: string): string[] =>
  rowsOf(path).flatMap(([, , , flags = '', , , inode, ...name]) =>
    inode !== undefined && (Number.parseInt(flags, 16) & ACCEPTS) !== 0 && name.join(' ') === wanted ? [inode] : [],
  )

function holdersOf(inodes: ReadonlySet<string>, proc: string): ReadonlyMap<string, readonly Holder[]> {
  const found = new Map<string, Holder[]>()
  if (inodes.size === 0) return found
  for (const pid of readdirSync(proc).filter(name => /^\d+$/.test(name))) {
    const held = socketsOf(`${proc}/${pid}/fd`).filter(inode => inodes.has(inode))
    const holder = held.length === 0 ? undefined : describeProcess(Number(pid), proc)
    if (holder === undefined) continue
    for (const inode of new Set(held)) found.set(inode, [...(found.get(inode) ?? []), holder])
  }
  return found
}

function socketsOf(directory: string): readonly string[] {
  try {
    return readdirSync(directory).flatMap(descriptor => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`${directory}/${descriptor}`))?.[1] ?? []
      } catch {
        return [] // closed meanwhile
      }
    })
  } catch {
    return [] // ended meanwhile, or a process of another account
  }
}

/** The process of that id; undefined: it has ended. */
function describeProcess(pid: number, proc = '/proc'): Holder | undefined {
  try {
    const words = readFileSync(`${proc}/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
    const name = readFileSync(`${proc}/${pid}/comm`, 'utf8').trim()
    return { pid, uid: statSync(`${proc}/${pid}`).uid, words, name }
  } catch {
    return undefined // ended meanwhile
  }
}

/**
 * The name of the auth-relay program that a process runs: `popup`, `sslwrap`, `authd`, `wrap`, or a
 * verb of auth-relay that stays. Undefined for any other process. `script` is a program of the same
 * installation.
 */
export function ourProgram({ pid, words }: Holder, script: string, proc = '/proc'): string | undefined {
  const at = words.findIndex((word, index) => index > 0 && !word.startsWith('-'))
  const named = words[at]
  if (at < 0 || named === undefined) return undefined
  try {
    const real = realpathSync(pathOf(named, pid, proc))
    if (dirname(real) !== dirname(realpathSync(script))) return undefined
    const name = basename(real).replace(/\.c?js$/, '')
    if (name !== 'auth-relay') return name
    const [verb = name, action] = words.slice(at + 1)
    // The other actions of the verb are commands that end.
    return verb === 'alerts' && action !== 'run' ? name : verb
  } catch {
    return undefined // The process has ended, or its program is not on this host any more.
  }
}

/** A program of auth-relay that runs with these settings. */
export type RunningProgram = {
  readonly name: string
  readonly pid: number
  readonly since: Date
  /** The systemd unit that the program belongs to, `auth-relay up`, or `by hand`. */
  readonly startedBy: string
}

const DAEMONS: ReadonlySet<string> = new Set(['authd', 'popup', 'sslwrap', 'wrap', 'status-page', 'alerts'])
/** Clock ticks of /proc/PID/stat in a second: USER_HZ, which is 100 on every Linux of today. */
const TICKS = 100

/**
 * The daemons that run with this settings file; their workers are left out. `script` is a program
 * of the same installation.
 */
export function runningPrograms(config: string, script: string): readonly RunningProgram[] {
  return readdirSync('/proc').flatMap((entry): RunningProgram[] => {
    const holder = /^\d+$/.test(entry) ? describeProcess(Number(entry)) : undefined
    const name = holder === undefined ? undefined : ourProgram(holder, script)
    if (holder === undefined || name === undefined || !DAEMONS.has(name) || configOf(holder) !== config) return []
    const facts = statOf(holder.pid)
    if (facts === undefined) return []
    const parent = describeProcess(facts.parent)
    const parentName = parent === undefined ? undefined : ourProgram(parent, script)
    if (parentName === name) return []
    const startedBy = parentName === 'up' ? 'auth-relay up' : (unitOf(holder.pid) ?? 'by hand')
    return [{ name, pid: holder.pid, since: facts.since, startedBy }]
  })
}

/** The settings file of a daemon: `--config FILE` or `--config=FILE`. Undefined: it has ended. */
function configOf({ pid, words }: Holder): string | undefined {
  const at = words.findIndex(word => /^--config(=|$)/.test(word))
  if (at < 0) return SETTINGS_FILE
  const file = words[at] === '--config' ? words[at + 1] : words[at]?.slice('--config='.length)
  try {
    return pathOf(file ?? '', pid)
  } catch {
    return undefined
  }
}

/** The path that a process gives, which may be relative to its directory. */
const pathOf = (path: string, pid: number, proc = '/proc'): string =>
  path.startsWith('/') ? resolve(path) : resolve(readlinkSync(`${proc}/${pid}/cwd`), path)

/**
 * Parent and start of a process (proc_pid_stat(5)); its name, in parentheses, can hold anything.
 */
function statOf(pid: number): { readonly parent: number; readonly since: Date } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const booted = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1])
    return { parent: Number(fields[1]), since: new Date((booted + Number(fields[19]) / TICKS) * 1000) }
  } catch {
    return undefined // ended meanwhile
  }
}

/** The unit of auth-relay to which a process belongs. */
export function unitOf(pid: number): string | undefined {
  try {
    return /\/(auth-relay-[a-z-]+\.service)/.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1]
  } catch {
    return undefined // ended meanwhile
  }
}
