/** The paths that the options of a systemd unit hide from its program or make read-only. */

import { realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Finding, unsafe } from './finding.ts'

/** The options of a unit for the file system, with the words of `systemctl show`. */
export type Sandbox = {
  /** Name without `.service`. */
  readonly unit: string
  readonly protectSystem: string
  readonly protectHome: string
  readonly privateTmp: string
  /** Absolute paths that the unit keeps writable. */
  readonly writable: readonly string[]
}

const HOMES = ['/home', '/root', '/run/user']
const TEMPORARY = ['/tmp', '/var/tmp']
const SYSTEM = ['/usr', '/boot', '/efi']
/** systemd leaves these writable under ProtectSystem=strict. */
const OF_KERNEL = ['/dev', '/proc', '/sys']

/** The options of a unit from the output of `systemctl show`, by name. */
export function sandboxOf(unit: string, facts: ReadonlyMap<string, string>): Sandbox {
  const words = (name: string): readonly string[] => (facts.get(name) ?? '').split(' ').filter(Boolean)
  const below = { StateDirectory: '/var/lib', RuntimeDirectory: '/run' }
  return {
    unit: unit.replace(/\.service$/, ''),
    protectSystem: facts.get('ProtectSystem') ?? 'no',
    protectHome: facts.get('ProtectHome') ?? 'no',
    privateTmp: facts.get('PrivateTmp') ?? 'no',
    writable: [
      ...words('ReadWritePaths').map(path => path.replace(/^[-+]+/, '')),
      ...Object.entries(below).flatMap(([name, directory]) => words(name).map(word => join(directory, word))),
    ],
  }
}

/** Names of the properties that `sandboxOf` reads. */
export const SANDBOX_PROPERTIES = [
  'ProtectSystem',
  'ProtectHome',
  'PrivateTmp',
  'ReadWritePaths',
  'StateDirectory',
  'RuntimeDirectory',
] as const

/** An option that keeps a program from a path, and the line that permits it. */
type Obstacle = { readonly option: string; readonly line: string }

/** The option that hides a path from the program; undefined if none does. */
export function hiddenBy({ protectHome, privateTmp }: Sandbox, path: string): Obstacle | undefined {
  const real = realPath(path)
  if (/^(yes|tmpfs)$/.test(protectHome) && isBelow(real, HOMES)) {
    return { option: `ProtectHome=${protectHome}`, line: 'ProtectHome=read-only' }
  }
  if (/^(yes|disconnected)$/.test(privateTmp) && isBelow(real, TEMPORARY)) {
    return { option: `PrivateTmp=${privateTmp}`, line: 'PrivateTmp=no' }
  }
  return undefined
}

/**
 * The option that makes a file or a directory read-only for the program; undefined if none does. A
 * FIFO and a socket can be opened nevertheless.
 */
export function readOnlyBy(sandbox: Sandbox, path: string): Obstacle | undefined {
  const { protectSystem, protectHome, privateTmp, writable } = sandbox
  const real = realPath(path)
  const line = `ReadWritePaths=${path}`
  if (isBelow(real, writable.map(realPath))) return undefined
  if (isBelow(real, HOMES)) return protectHome === 'read-only' ? { option: 'ProtectHome=read-only', line } : undefined
  if (isBelow(real, OF_KERNEL) || (isBelow(real, TEMPORARY) && privateTmp !== 'no')) return undefined
  const option = `ProtectSystem=${protectSystem}`
  const isClosed =
    protectSystem === 'strict' ||
    (protectSystem === 'full' && isBelow(real, [...SYSTEM, '/etc'])) ||
    (protectSystem === 'yes' && isBelow(real, SYSTEM))
  return isClosed ? { option, line } : undefined
}

/**
 * Unsafe if the unit keeps its program from a path. `needs`: the program reads the path, or makes
 * and replaces files there. `consequence` ends the text.
 */
export function sandboxFindings(
  about: string,
  sandbox: Sandbox | undefined,
  path: string,
  needs: 'read' | 'write',
  consequence: string,
): readonly Finding[] {
  if (sandbox === undefined) return []
  const hidden = hiddenBy(sandbox, path)
  // The unit after the first remedy.
  const opened =
    hidden === undefined
      ? sandbox
      : { ...sandbox, ...(hidden.line === 'PrivateTmp=no' ? { privateTmp: 'no' } : { protectHome: 'read-only' }) }
  const closed = needs === 'write' ? readOnlyBy(opened, path) : undefined
  const first = hidden ?? closed
  if (first === undefined) return []
  const effect = hidden === undefined ? 'makes it read-only' : 'hides it'
  const lines = [hidden, closed].flatMap(obstacle => obstacle?.line ?? [])
  return [
    unsafe(
      about,
      `${first.option} of the unit ${sandbox.unit} ${effect}: ${path}: ${consequence}`,
      `systemctl edit ${sandbox.unit}, and write under [Service]: ${lines.join(' and, on a separate line, ')}`,
    ),
  ]
}

const isBelow = (path: string, directories: readonly string[]): boolean =>
  directories.some(directory => path === directory || path.startsWith(`${directory.replace(/\/$/, '')}/`))

/** The path without symbolic links, as far as it exists. */
function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : join(realPath(parent), path.slice(parent.length))
  }
}
