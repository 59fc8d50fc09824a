import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { eventually } from '../eventually.ts'
import { Program, run } from '../processes/program.ts'
import { countAssertion } from '../runner/assertion-count.ts'
import { command, type Need, pathOf, ROOT } from '../runner/describe-with.ts'
import type { NetworkNamespace } from './network-namespace.ts'

const cache = new URL('../../../node_modules/.cache/debian-machine/', import.meta.url).pathname
const BOOT = new URL('debian-machine.sh', import.meta.url).pathname

/** Debian 12 and Debian 13. */
export const RELEASES = ['bookworm', 'trixie'] as const
export type Release = (typeof RELEASES)[number]

/** Packages of a mail host before auth-relay is installed, besides Debian's smallest system. */
const PACKAGES = ['dbus', 'logrotate', 'postgresql', 'rsyslog', 'ssl-cert', 'systemd', 'systemd-sysv']

/**
 * Servers that a machine can install without a network. Packages of different lines conflict, so
 * each line is fetched separately.
 */
const COUNTERPARTS = [
  ['postfix'],
  ['exim4-daemon-light'],
  ['dovecot-pop3d'],
  ['courier-pop'],
  ['haproxy'],
  ['lintian'],
  ['zsh'],
  ['fish'],
] as const

/** Packages of a host that runs containers with podman; fetched for Debian 13. */
export const PODMAN = [
  'podman',
  'podman-compose',
  'crun',
  'netavark',
  'aardvark-dns',
  'nftables',
  'procps',
  'passt',
  'uidmap',
  'dbus-user-session',
]

/** Packages of a host that runs containers with docker; fetched for Debian 13. */
export const DOCKER = ['docker.io', 'docker-cli', 'docker-compose', 'docker-buildx', 'procps']

/** Packages that docker needs in addition to run without root; fetched for Debian 13. */
export const ROOTLESS_DOCKER = ['rootlesskit', 'slirp4netns', 'uidmap', 'iproute2', 'dbus-user-session']

/** The packages of a database host of a cluster; fetched with the packages that they recommend. */
const DATABASE_CLUSTER = ['patroni', 'python3-etcd', 'etcd-server', 'etcd-client', 'postgresql']

const packagesToFetch = (release: Release): readonly (readonly string[])[] =>
  release === 'trixie' ? [...COUNTERPARTS, PODMAN, [...DOCKER, ...ROOTLESS_DOCKER]] : COUNTERPARTS

/** The commands and rights that a machine needs. */
export const DEBIAN_MACHINE: readonly Need[] = [ROOT, command('debootstrap'), command('unshare', 'util-linux')]

/**
 * A separate, freshly installed Debian in namespaces of this host, with its own systemd as process
 * 1. Packages can be installed and services started in it as on a real host. Nothing outside is
 * changed, and `stop` removes it.
 */
export class DebianMachine {
  readonly #program: Program
  readonly #group: string
  readonly #pid: number

  /** Machines that this process has booted. */
  static #booted = 0

  private constructor(program: Program, group: string, pid: number) {
    this.#program = program
    this.#group = group
    this.#pid = pid
  }

  /**
   * Boots the machine on a host of a TestNetwork. Files that the machine writes are in the
   * directory `disk` and are there at the next boot; without a disk they are in memory.
   */
  static async boot(
    host: NetworkNamespace,
    release: Release,
    { name = 'machine', disk = '' }: { readonly name?: string; readonly disk?: string } = {},
  ): Promise<DebianMachine> {
    const root = freshSystem(release)
    removeOrphans()
    DebianMachine.#booted += 1
    const group = `${groupRoot()}/${GROUP}${process.pid}/${DebianMachine.#booted}`
    mkdirSync(group, { recursive: true })
    // The group first, because `ip netns exec` hides the host's groups behind another /sys.
    const enter = ['sh', '-ec', `echo $$ > "$1"/cgroup.procs; shift; exec "$@"`, 'enter', group, ...host.prefix]
    const unshare = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--uts', '--ipc', '--cgroup']
    const program = new Program(name, [...enter, ...unshare, 'sh', BOOT, root, name, disk])
    const pid = await program.waitFor('systemd is process 1', () => {
      const pids = readFileSync(`/proc/${program.pid}/task/${program.pid}/children`, 'utf8')
      const child = Number(pids.trim().split(' ')[0])
      return child > 0 && readFileSync(`/proc/${child}/comm`, 'utf8') === 'systemd\n' && child
    })
    const machine = new DebianMachine(program, group, pid)
    await eventually('the machine is up', async () =>
      /^(running|degraded)$/.test(await machine.answer('systemctl', 'is-system-running')),
    )
    return machine
  }

  /**
   * Words before a command, so that it runs in the machine. The command joins the control group of
   * systemd's own processes, because systemd refuses a process from outside the machine's groups.
   */
  get prefix(): readonly string[] {
    const namespaces = ['--mount', '--pid', '--net', '--uts', '--ipc', '--cgroup']
    const join = `echo $$ > "$1"/init.scope/cgroup.procs; shift; exec "$@"`
    return [
      'sh',
      '-ec',
      join,
      'join',
      this.#group,
      'nsenter',
      `--target=${this.#pid}`,
      ...namespaces,
      '--root',
      '--wd',
      '--',
    ]
  }

  /** Runs a command in the machine and waits until it ends. */
  run(...words: readonly string[]): Promise<Program> {
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', TERM: 'dumb', DEBIAN_FRONTEND: 'noninteractive' }
    return run(words, { prefix: this.prefix, env })
  }

  /**
   * Installs Debian packages, or package files, with their dependencies. All of them were fetched
   * when the system was made.
   */
  install(...names: readonly string[]): Promise<string> {
    return this.must('apt-get', 'install', '-q', '-y', '--no-install-recommends', ...names)
  }

  /** Runs a shell script in the machine; the script stops at the first failure. */
  sh(script: string): Promise<string> {
    return this.must('sh', '-ec', script)
  }

  /** The output of a command in the machine. */
  async answer(...words: readonly string[]): Promise<string> {
    return (await this.run(...words)).lines.join('\n')
  }

  /**
   * As `answer`, for a command that must succeed. If it fails, the error shows its whole output.
   */
  async must(...words: readonly string[]): Promise<string> {
    const { lines, ending } = await this.run(...words)
    if (ending?.code !== 0) throw new Error(`${words.join(' ')}: ${JSON.stringify(ending)}\n${lines.join('\n')}`)
    countAssertion()
    return lines.join('\n')
  }

  /** Path of a file of the machine, as seen by this process. */
  path(inside: string): string {
    return `/proc/${this.#pid}/root${inside}`
  }

  write(inside: string, text: string): void {
    writeFileSync(this.path(inside), text)
  }

  copyIn(from: string, inside: string): void {
    copyFileSync(from, this.path(inside))
  }

  async stop(): Promise<void> {
    // systemd is its child and ends with it, and so do all other processes of the machine.
    this.#program.signal('SIGKILL')
    await this.#program.ended
    await eventually('every process of the machine has ended', () => removeGroup(this.#group))
    removeEmpty(dirname(this.#group)) // unless another machine of this process is in it
  }
}

/**
 * Names of the control groups of the tests; each contains the pid of its test process, and has a
 * group for each machine.
 */
const GROUP = 'auth-relay-machine-'

/**
 * Control groups of test processes that were killed before they could remove them. Their machines
 * ended with them.
 */
function removeOrphans(): void {
  for (const name of readdirSync(groupRoot()).filter(entry => entry.startsWith(GROUP))) {
    if (!existsSync(`/proc/${name.slice(GROUP.length)}`)) removeGroup(`${groupRoot()}/${name}`)
  }
}

/** Where the host keeps its control groups of version 2. */
function groupRoot(): string {
  const line = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find(mount => mount.split(' ')[2] === 'cgroup2')
  const path = line?.split(' ')[1]
  if (path === undefined) throw new Error('this host has no cgroup2 file system: the machine needs one')
  return path
}

/** Removes control groups, children before parents; false while a process is in one of them. */
function removeGroup(path: string): boolean {
  if (!existsSync(path)) return true
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroup(`${path}/${entry.name}`)
  }
  return removeEmpty(path)
}

function removeEmpty(path: string): boolean {
  try {
    rmdirSync(path)
    return true
  } catch {
    return false // EBUSY: a process still uses the directory, or another group
  }
}

/**
 * The root directory of a system as debootstrap makes it, from the mirror of this host. It is made
 * once, and then only read.
 */
function freshSystem(release: Release): string {
  const contents = createHash('sha256')
    .update(JSON.stringify([PACKAGES, packagesToFetch(release), DATABASE_CLUSTER]))
    .digest('hex')
    .slice(0, 12)
  const path = `${cache}${release}-${contents}`
  if (existsSync(path)) return path
  mkdirSync(cache, { recursive: true })
  for (const old of readdirSync(cache)) {
    if (old.startsWith(`${release}-`)) rmSync(`${cache}${old}`, { recursive: true, force: true })
  }
  const work = `${path}.${process.pid}`
  debootstrap(release, work, PACKAGES)
  fetchPackages(work, packagesToFetch(release))
  renameSync(work, path)
  return path
}

/** Debian's smallest system, the base of container images. It is made once, and then only read. */
export function minimalSystem(release: Release): string {
  const path = `${cache}minimal-${release}`
  if (existsSync(path)) return path
  mkdirSync(cache, { recursive: true })
  const work = `${path}.${process.pid}`
  debootstrap(release, work, [])
  renameSync(work, path)
  return path
}

function debootstrap(release: Release, directory: string, packages: readonly string[]): void {
  const include = packages.length === 0 ? [] : [`--include=${packages.join(',')}`]
  must(pathOf('debootstrap') ?? 'debootstrap', ['--variant=minbase', ...include, release, directory, mirror(release)])
}

/**
 * The apt of this host fetches the packages into the new system, because its access to the mirror
 * is configured.
 */
function fetchPackages(root: string, groups: readonly (readonly string[])[]): void {
  const apt = (...words: readonly string[]): void =>
    must('apt-get', [
      '-q',
      ...['-o', `Dir=${root}`, '-o', `Dir::State::status=${root}/var/lib/dpkg/status`],
      ...['-o', `Dir::Cache::archives=${root}/var/cache/apt/archives`, '-o', 'APT::Sandbox::User=root'],
      ...words,
    ])
  apt('update')
  const fetched = ['install', '-y', '--download-only']
  for (const names of groups) apt(...fetched, '--no-install-recommends', ...names)
  apt(...fetched, ...DATABASE_CLUSTER)
}

function must(command: string, words: readonly string[]): void {
  const { status, error, stdout, stderr } = spawnSync(command, words, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${words.join(' ')}: ${error?.message ?? ''}\n${stdout}${stderr}`)
}

/** Mirror from which this host is installed, or could be. Every mirror has every release. */
function mirror(release: Release): string {
  const format = ['--format', '$(SITE) $(RELEASE)', 'Created-By: Packages', 'Component: main']
  const lines = execFileSync('apt-get', ['indextargets', ...format], { encoding: 'utf8' })
    .trim()
    .split('\n')
  const own = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  const find = (name: string | undefined) => lines.find(line => line.split(' ')[1] === name)?.split(' ')[0]
  const site = find(release) ?? find(own)
  if (site === undefined) throw new Error(`apt has no mirror of Debian ${release}`)
  return site
}
