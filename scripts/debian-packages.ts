import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'

/** Packages that the system tests use, one a line. */
const LIST = new URL('../test/harness/hosts/debian-packages.txt', import.meta.url)
/** Additional packages for the tests of the package. */
export const PACKAGE_TOOLS = new URL('../test/package/debian-packages.txt', import.meta.url)

/**
 * Stops Debian's package scripts from starting daemons. The tests start the daemons that they need.
 */
const POLICY = '/usr/sbin/policy-rc.d'

/** The packages that this host lacks; all of them on a host without dpkg. */
export function missingPackages(list = LIST): readonly string[] {
  const wanted = readFileSync(list, 'utf8')
    .split('\n')
    .filter(line => /^[a-z0-9]/.test(line))
  // biome-ignore lint/suspicious/noTemplateCurlyInString: placeholders of dpkg-query
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...wanted], {
    encoding: 'utf8',
  })
  const installed = new Set(
    (query.stdout ?? '')
      .split('\n')
      .filter(line => line.endsWith(' installed'))
      .map(line => line.split(' ')[0]),
  )
  return wanted.filter(name => !installed.has(name))
}

/**
 * Installs Debian packages if this process runs as root and apt-get exists. True if they are
 * installed afterwards.
 */
export function installPackages(names: readonly string[]): boolean {
  if (process.geteuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return false
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const apt = (...args: string[]): boolean =>
    spawnSync('apt-get', ['-q', '-o', 'Dpkg::Use-Pty=0', ...args], {
      env: environment,
      stdio: ['ignore', 'ignore', 'inherit'],
    }).status === 0
  const ownPolicy = !existsSync(POLICY)
  if (ownPolicy) writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    const install = (): boolean => apt('install', '-y', '--no-install-recommends', ...names)
    return install() || (apt('update') && install())
  } finally {
    if (ownPolicy) rmSync(POLICY)
  }
}
