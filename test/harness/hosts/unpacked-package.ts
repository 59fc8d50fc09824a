import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import type { Need } from '../runner/describe-with.ts'

const cache = new URL('../../../node_modules/.cache/debian-unpack/', import.meta.url).pathname

/**
 * Packages that conflict, one a line, with the packages to unpack beside them. They are never
 * installed.
 */
const listed = new Map(
  readFileSync(new URL('debian-unpack.txt', import.meta.url), 'utf8')
    .split('\n')
    .map(line => line.split(' '))
    .map(names => [names[0], names]),
)

/**
 * Accounts that the scripts of the packages would create. The host has no account with these ids.
 */
export const PACKAGE_IDS = { postfix: 61230, postdrop: 61231, exim: 61232 } as const
const USERS = `postfix:x:${PACKAGE_IDS.postfix}:${PACKAGE_IDS.postfix}::/:/bin/false
Debian-exim:x:${PACKAGE_IDS.exim}:${PACKAGE_IDS.exim}::/:/bin/false
`
const GROUPS = `postfix:x:${PACKAGE_IDS.postfix}:
postdrop:x:${PACKAGE_IDS.postdrop}:
Debian-exim:x:${PACKAGE_IDS.exim}:
`

/**
 * Mounts the package over /usr and the accounts over /etc, in a mount namespace that ends with the
 * command.
 */
const ENTER = `set -e
root=$1; shift
mount -t overlay overlay -o "lowerdir=$root/usr:/usr" /usr
mount --bind "$root/passwd" /etc/passwd
mount --bind "$root/group" /etc/group
exec "$@"`

/** Words before a command, so that it sees the package as installed. */
export function inPackage(name: string): readonly string[] {
  if (!listed.has(name)) throw new Error(`${name} is not in debian-unpack.txt`)
  const root = unpack(name)
  writeFileSync(`${root}/passwd`, readFileSync('/etc/passwd', 'utf8') + USERS)
  writeFileSync(`${root}/group`, readFileSync('/etc/group', 'utf8') + GROUPS)
  return ['unshare', '--mount', 'sh', '-c', ENTER, 'enter', root]
}

/**
 * A file of a package that runs where it was unpacked, without a mount over the system. Throws if
 * the package is not available.
 */
export function fileInPackage(name: string, path: string): string {
  if (!listed.has(name)) throw new Error(`${name} is not in debian-unpack.txt`)
  return `${unpack(name)}${path}`
}

/** A Debian package that can be unpacked here and mounted over the system. */
export const unpackedPackage = (name: string): Need => ({
  name: `${name}, unpacked`,
  remedy: 'run as root on Debian, with overlay mounts and the package archive in reach',
  isThere: () => {
    if (process.geteuid?.() !== 0) return false
    try {
      const [command = '', ...args] = [...inPackage(name), 'true']
      return spawnSync(command, args).status === 0
    } catch {
      return false // not Debian, or no archive: the name of the skipped group lists the need
    }
  },
})

/** Fetches and unpacks a package once; returns the folder. */
export function unpack(name: string): string {
  const names = listed.get(name) ?? [name]
  const root = `${cache}${names.join('+')}`
  if (existsSync(`${root}/usr`)) return root
  const work = `${root}.${process.pid}`
  mkdirSync(work, { recursive: true })
  try {
    run('apt-get', ['download', '-q', ...names], work)
    const debs = readdirSync(work).filter(file => file.endsWith('.deb'))
    if (debs.length < names.length) throw new Error(`apt-get download ${names.join(' ')} wrote ${debs.join(' ')}`)
    for (const deb of debs) run('dpkg-deb', ['-x', deb, 'root'], work)
    // Another test file may have finished first; its folder has the same content.
    if (!existsSync(root)) renameSync(`${work}/root`, root)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return root
}

function run(command: string, args: readonly string[], cwd: string): void {
  const { status, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`)
}
