import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { unpack } from '../../test/harness/hosts/unpacked-package.ts'

export type Overlay = {
  /**
   * Debian packages that are unpacked and not installed, because packages of POP3 servers conflict.
   */
  readonly packages: readonly string[]
  /** A folder of the bench for the overlay. */
  readonly directory: string
  /**
   * Files below /etc by their whole path, with their text. They replace the files of the packages.
   */
  readonly files: Readonly<Record<string, string>>
  /** Folders below /var/lib that an installation would make. */
  readonly state?: readonly string[]
  /** Folder that replaces /var/mail. */
  readonly mailboxes?: string
}

/**
 * Runs in a mount namespace that ends with the command: the packages over /usr, the files over
 * /etc, an empty /run.
 */
const ENTER = `set -e
usr=$1 etc=$2 lib=$3 mail=$4; shift 4
mount -t overlay overlay -o "lowerdir=$usr:/usr" /usr
mount -t overlay overlay -o "lowerdir=$etc:/etc" /etc
mount -t overlay overlay -o "lowerdir=$lib:/var/lib" /var/lib
mount --bind "$mail" /var/mail
mount -t tmpfs tmpfs /run
exec "$@"`

const PRIVATE = /shadow|userdb/

/**
 * Words before a command, so that it sees the packages as installed, with these files. Needs root.
 */
export function overlayPrefix({ packages, directory, files, state = [], mailboxes }: Overlay): readonly string[] {
  const roots = packages.map(unpack)
  const layers = (name: string, own: readonly string[] = []): string =>
    [...own, ...roots.map(root => `${root}/${name}`).filter(path => existsSync(path))].join(':')
  for (const folder of ['etc', 'lib', 'mail', ...state.map(name => `lib/${name}`)]) {
    mkdirSync(`${directory}/${folder}`, { recursive: true })
  }
  for (const [path, text] of Object.entries(files)) {
    const place = `${directory}${path}`
    mkdirSync(dirname(place), { recursive: true })
    writeFileSync(place, text)
    chmodSync(place, PRIVATE.test(path) ? 0o600 : 0o644)
  }
  const places = [
    layers('usr'),
    layers('etc', [`${directory}/etc`]),
    `${directory}/lib`,
    mailboxes ?? `${directory}/mail`,
  ]
  return ['unshare', '--mount', 'sh', '-c', ENTER, 'enter', ...places]
}
