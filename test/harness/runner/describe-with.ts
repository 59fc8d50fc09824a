import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { describe, test } from 'vitest'

/** A command, a right or a package outside of this project that a test needs. */
export type Need = { readonly name: string; readonly remedy: string; isThere(): boolean }

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false // missing or not executable: the test cannot use it either way
  }
}

const SEARCHED = [
  ...(process.env['PATH'] ?? '').split(':'),
  '/usr/local/sbin',
  '/usr/sbin',
  '/sbin',
  '/usr/bin',
  '/bin',
]

/**
 * Absolute path of a command, or undefined. The search includes directories that only root's PATH
 * names.
 */
export const pathOf = (command: string): string | undefined =>
  SEARCHED.map(directory => `${directory}/${command}`).find(isExecutable)

/** A command of a Debian package. */
export const command = (name: string, debianPackage = name): Need => ({
  name,
  remedy: `apt-get install ${debianPackage}`,
  isThere: () => pathOf(name) !== undefined,
})

/** The Python of Debian. A `python3` elsewhere in PATH may be a slow wrapper. */
export const PYTHON = '/usr/bin/python3'
export const DEBIAN_PYTHON: Need = {
  name: PYTHON,
  remedy: 'apt-get install python3',
  isThere: () => existsSync(PYTHON),
}

/** The right to take other ids and to bind low ports. */
export const ROOT: Need = { name: 'root', remedy: 'run as root', isThere: () => process.geteuid?.() === 0 }

/** The right to make network namespaces. */
export const NETWORK_NAMESPACES: Need = {
  name: 'network namespaces',
  remedy: 'run as root with CAP_SYS_ADMIN and iproute2',
  isThere: () =>
    spawnSync('unshare', ['--net', pathOf('ip') ?? 'ip', 'link', 'add', 'probe', 'type', 'veth']).status === 0,
}

/**
 * A group of tests that needs something outside this project. If a need is missing, the group fails
 * in CI. On other hosts the group is skipped, and its name lists the missing needs.
 */
export function describeWith(needs: readonly Need[], name: string, body: () => void): void {
  const missing = needs.filter(need => !need.isThere())
  if (missing.length === 0) {
    describe(name, body)
    return
  }
  const what = missing.map(need => `${need.name} (${need.remedy})`).join(', ')
  if (process.env['CI'] === 'true') {
    test(`${name}: everything it needs is there`, () => {
      throw new Error(`missing: ${what}`)
    })
  } else {
    test.skip(`${name} [missing: ${what}]`, () => {})
  }
}
