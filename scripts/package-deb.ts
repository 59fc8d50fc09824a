import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { gzipSync } from 'node:zlib'
import manifest from '../package.json' with { type: 'json' }
import { buildAll } from './build.ts'
import { changesOf, debianChangelog } from './debian/changelog.ts'
import { copyright } from './debian/copyright.ts'
import { debianDocuments } from './debian/documents.ts'
import { DEBIAN_SCHEMA, debianSettings } from './debian/settings-template.ts'

const root = new URL('..', import.meta.url).pathname
const LIBRARY = 'usr/lib/auth-relay'

/** Names of processors: Node.js's name, and Debian's name. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

/** Programs that the build needs besides Node.js, each with its Debian package. */
const TOOLS = [
  ['dpkg-deb', 'dpkg'],
  ['strip', 'binutils'],
  ['git', 'git'],
] as const

export type DebOptions = {
  /** Directory for the package. */
  readonly directory: string
  /** Compression option of dpkg-deb, such as `-Zxz`; tests use a fast one. */
  readonly compression: readonly string[]
  /**
   * Debian version; by default that of package.json, with `~` before a pre-release so that it sorts
   * before the release.
   */
  readonly version?: string
}

/**
 * Builds the Debian package for this machine's processor with dpkg-deb. It contains the bundled
 * programs, the runtime, the native module, units and manual pages. The same commit gives the same
 * octets. Returns the path of the package.
 */
export async function packageDeb({ directory, compression, version = debianVersion() }: DebOptions): Promise<string> {
  const architecture = ARCHITECTURES[process.arch]
  if (architecture === undefined)
    throw new Error(`the package cannot be built for the processor ${process.arch}, because there is no Node.js for it`)
  for (const [tool, debianPackage] of TOOLS) {
    if (spawnSync(tool, ['--version']).error !== undefined)
      throw new Error(`${tool} is missing: apt install ${debianPackage}`)
  }
  const programs = await buildAll()
  const date = new Date(
    Number(execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' })) * 1000,
  )
  const tree = new Tree(mkdtempSync(join(tmpdir(), 'auth-relay-deb-')))
  try {
    addPrograms(tree, programs)
    addConfiguration(tree)
    addDocuments(tree, version, date)
    addControl(tree, version, architecture)
    tree.settle(date)
    mkdirSync(directory, { recursive: true })
    const path = join(directory, `auth-relay_${version}_${architecture}.deb`)
    execFileSync('dpkg-deb', ['--root-owner-group', ...compression, '--build', tree.root, path], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, SOURCE_DATE_EPOCH: String(date.getTime() / 1000) },
    })
    return path
  } finally {
    rmSync(tree.root, { recursive: true, force: true })
  }
}

const debianVersion = (): string => `${manifest.version.replace('-', '~')}-1`

/** The files of the package while they are gathered. */
class Tree {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  write(path: string, text: string | Uint8Array, mode = 0o644): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    writeFileSync(join(this.root, path), text)
    chmodSync(join(this.root, path), mode)
  }

  copy(from: string, path: string, mode = 0o644): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    copyFileSync(join(root, from), join(this.root, path))
    chmodSync(join(this.root, path), mode)
  }

  link(path: string, target: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    symlinkSync(target, join(this.root, path))
  }

  /** Every regular file that will be installed, relative to the root, sorted. */
  get files(): readonly string[] {
    return globSync('**', { cwd: this.root, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => relative(this.root, join(entry.parentPath, entry.name)))
      .filter(path => !path.startsWith('DEBIAN/'))
      .sort()
  }

  /** Sets modes and times that do not depend on the account and the time of the build. */
  settle(date: Date): void {
    for (const entry of readdirSync(this.root, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name)
      if (entry.isDirectory()) chmodSync(path, 0o755)
      if (!entry.isSymbolicLink()) utimesSync(path, date, date)
    }
    chmodSync(this.root, 0o755)
    utimesSync(this.root, date, date)
  }
}

const NATIVE = {
  runtime: `node_modules/node-linux-${process.arch}`,
  koffi: `node_modules/@koromix/koffi-linux-${process.arch}`,
} as const

/**
 * Programs that bin/launch starts. The names with the prefix auth-relay- are in /usr/bin. Run
 * scripts use the short names.
 */
const PROGRAMS = ['authd', 'pop3d', 'popup', 'sslwrap', 'wrap'] as const

/** `built`: the files of this build, because dist/ may contain files of other builds. */
function addPrograms(tree: Tree, built: ReadonlySet<string>): void {
  for (const path of [...built].filter(file => !file.endsWith('.map')).sort()) {
    const file = relative(root, path)
    tree.copy(file, `${LIBRARY}/${file}`)
  }
  const { name, version, type, license } = manifest
  tree.write(`${LIBRARY}/package.json`, `${JSON.stringify({ name, version, type, license }, undefined, 2)}\n`)
  for (const file of globSync('sql/*.sql', { cwd: root })) tree.copy(file, `${LIBRARY}/${file}`)
  tree.copy(`${NATIVE.runtime}/bin/node`, `${LIBRARY}/${NATIVE.runtime}/bin/node`, 0o755)
  // Removes debugging symbols; symbols for linking stay.
  execFileSync('strip', ['--strip-unneeded', join(tree.root, LIBRARY, NATIVE.runtime, 'bin/node')])
  const module = `linux_${process.arch}/koffi.node`
  tree.copy(`${NATIVE.koffi}/${module}`, `${LIBRARY}/${NATIVE.koffi}/${module}`)
  execFileSync('strip', ['--strip-unneeded', join(tree.root, LIBRARY, NATIVE.koffi, module)])
  tree.copy(`${NATIVE.koffi}/package.json`, `${LIBRARY}/${NATIVE.koffi}/package.json`)
  tree.copy('bin/launch', `${LIBRARY}/bin/launch`, 0o755)
  tree.link('usr/bin/auth-relay', `../lib/auth-relay/bin/auth-relay`)
  tree.link(`${LIBRARY}/bin/auth-relay`, 'launch')
  for (const program of PROGRAMS) {
    tree.link(`${LIBRARY}/bin/${program}`, 'launch')
    tree.link(`usr/bin/auth-relay-${program}`, `../lib/auth-relay/bin/${program}`)
  }
  tree.copy('deploy/debian/auth-relay-setup-database', 'usr/sbin/auth-relay-setup-database', 0o755)
}

function addConfiguration(tree: Tree): void {
  for (const unit of globSync('deploy/systemd/auth-relay*.{service,socket,target}', { cwd: root })) {
    tree.copy(unit, `usr/lib/systemd/system/${unit.replace('deploy/systemd/', '')}`)
  }
  tree.copy('deploy/systemd/tmpfiles.conf', 'usr/lib/tmpfiles.d/auth-relay.conf')
  tree.copy('deploy/systemd/sysusers.conf', 'usr/lib/sysusers.d/auth-relay.conf')
  tree.copy('deploy/logrotate/auth-relay', 'etc/logrotate.d/auth-relay')
  tree.copy('deploy/rsyslog/49-auth-relay.conf', 'etc/rsyslog.d/49-auth-relay.conf')
  tree.copy('deploy/fail2ban/filter.conf', 'etc/fail2ban/filter.d/auth-relay.conf')
  tree.copy('deploy/fail2ban/jail.conf', 'etc/fail2ban/jail.d/auth-relay.conf')
  tree.write('usr/share/auth-relay/auth-relay.toml', debianSettings())
  // `auth-relay init` looks for the schema above its program, and writes the name of the link's
  // target.
  const schema = 'deploy/auth-relay.schema.json'
  tree.copy(schema, DEBIAN_SCHEMA.slice(1))
  tree.link(`${LIBRARY}/${schema}`, `../../../share/auth-relay/auth-relay.schema.json`)
}

/** The directory in which each shell looks for completions. */
const COMPLETIONS = {
  bash: 'usr/share/bash-completion/completions/auth-relay',
  zsh: 'usr/share/zsh/vendor-completions/_auth-relay',
  fish: 'usr/share/fish/vendor_completions.d/auth-relay.fish',
} as const

function addDocuments(tree: Tree, version: string, date: Date): void {
  const documents = 'usr/share/doc/auth-relay'
  const packed = (text: string | Uint8Array): Uint8Array => gzipSync(text, { level: 9 })
  for (const page of globSync('docs/man/*.[58]', { cwd: root })) {
    const [, name = '', section = ''] = /\/([^/]+)\.([58])$/.exec(page) ?? []
    // Courier and other packages have a pop3d(8) too. The file has a different name, and `man
    // pop3d` finds it nevertheless.
    const ownName = name.startsWith('auth-relay')
    const suffix = ownName ? section : `${section}auth-relay`
    const text = readFileSync(join(root, page), 'utf8').replace(/^(\.TH \S+) \d/m, `$1 ${suffix}`)
    tree.write(`usr/share/man/man${section}/${name}.${suffix}.gz`, packed(text))
    if (!ownName) tree.link(`usr/share/man/man8/auth-relay-${name}.8.gz`, `${name}.${suffix}.gz`)
  }
  const setup = 'auth-relay-setup-database.8'
  tree.write(`usr/share/man/man8/${setup}.gz`, packed(readFileSync(join(root, 'deploy/debian', setup))))
  tree.copy('deploy/debian/lintian-overrides', 'usr/share/lintian/overrides/auth-relay')
  for (const [shell, path] of Object.entries(COMPLETIONS)) {
    const command = [join(root, 'dist/auth-relay.js'), 'completion', shell]
    tree.write(path, execFileSync(process.execPath, command, { env: {} }))
  }
  for (const [name, text] of debianDocuments()) tree.write(`${documents}/${name}`, text)
  for (const file of ['to-authd-tcp.conf', 'to-authd-fifo.conf']) {
    tree.copy(`deploy/rsyslog/${file}`, `${documents}/examples/rsyslog/${file}`)
  }
  for (const file of [
    'prometheus/auth-relay.rules.yml',
    'grafana/auth-relay.json',
    'patroni/etcd',
    'patroni/patroni.yml',
  ]) {
    tree.copy(`deploy/${file}`, `${documents}/examples/${file}`)
  }
  for (const dropIn of ['authd-follow', 'authd-journal', 'credentials', 'smtpd', 'wrap-cdb']) {
    tree.copy(`deploy/systemd/${dropIn}.conf`, `${documents}/examples/systemd/${dropIn}.conf`)
  }
  for (const file of globSync('deploy/runit/**/*', { cwd: root, withFileTypes: true })) {
    if (!file.isFile()) continue
    const path = relative(root, join(file.parentPath, file.name))
    // Git stores only whether a file is executable; the other bits come from the umask of the
    // checkout.
    const mode = (statSync(join(root, path)).mode & 0o100) === 0 ? 0o644 : 0o755
    tree.copy(path, `${documents}/examples/${path.replace('deploy/', '')}`, mode)
  }
  const changelog = readFileSync(join(root, 'CHANGELOG.md'), 'utf8')
  const changes = changesOf(changelog, manifest.version.includes('-') ? 'Pending' : manifest.version)
  tree.write(`${documents}/changelog.Debian.gz`, packed(debianChangelog(version, changes, date)))
  tree.write(`${documents}/changelog.gz`, packed(changelog))
  tree.write(`${documents}/copyright`, copyright(Object.values(NATIVE)))
}

function addControl(tree: Tree, version: string, architecture: string): void {
  const files = tree.files
  const kilobytes = files.reduce((sum, path) => sum + Math.ceil(statSync(join(tree.root, path)).size / 1024), 0)
  const control = readFileSync(join(root, 'deploy/debian/control'), 'utf8')
    .replace('@VERSION@', version)
    .replace('@ARCHITECTURE@', architecture)
    .replace('@INSTALLED_SIZE@', String(kilobytes))
  tree.write('DEBIAN/control', control)
  tree.copy('deploy/debian/conffiles', 'DEBIAN/conffiles')
  for (const script of ['postinst', 'prerm', 'postrm']) tree.copy(`deploy/debian/${script}`, `DEBIAN/${script}`, 0o755)
  const sums = files.map(path => {
    const sum = createHash('md5')
      .update(readFileSync(join(tree.root, path)))
      .digest('hex')
    return `${sum}  ${path}\n`
  })
  tree.write('DEBIAN/md5sums', sums.join(''))
}

if (import.meta.main) {
  try {
    const path = await packageDeb({ directory: join(root, 'packages'), compression: ['-Zxz', '-z6'] })
    console.log(`${path} (${Math.round(statSync(path).size / 1_000_000)} MB)`)
  } catch (error) {
    console.error(`package:deb: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  }
}
