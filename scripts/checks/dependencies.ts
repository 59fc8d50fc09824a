import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import * as v from 'valibot'
import { installScriptFaults } from '../install-scripts.ts'

/**
 * Checks the packages in package-lock.json and package.json: checksums, exact versions, install
 * scripts, deprecations and, if the registry answers, its security advisories.
 */

const AUDIT_DEADLINE_MS = 30_000
const SEVERE = ['moderate', 'high', 'critical'] as const

const lockfile = v.object({
  packages: v.record(
    v.string(),
    v.object({
      resolved: v.optional(v.string()),
      integrity: v.optional(v.string()),
      hasInstallScript: v.optional(v.boolean()),
      deprecated: v.optional(v.string()),
    }),
  ),
})
const manifest = v.object({
  dependencies: v.record(v.string(), v.string()),
  devDependencies: v.record(v.string(), v.string()),
  optionalDependencies: v.record(v.string(), v.string()),
})
const permissions = v.object({ allowScripts: v.record(v.string(), v.boolean()) })
const report = v.object({ metadata: v.object({ vulnerabilities: v.record(v.string(), v.number()) }) })

const read = (name: string): unknown => JSON.parse(readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8'))
const { packages } = v.parse(lockfile, read('package-lock.json'))
const faults = [...installScriptFaults(packages, v.parse(permissions, read('package.json')).allowScripts)]

for (const [path, { resolved, integrity, deprecated }] of Object.entries(packages)) {
  if (path === '') continue
  if (!/^sha512-/.test(integrity ?? '')) faults.push(`${path}: package-lock.json has no SHA-512 checksum`)
  // package-lock.json has no addresses, because each host has its registry in its configuration.
  if (resolved !== undefined) faults.push(`${path}: package-lock.json contains the address ${resolved}: remove it`)
  if (deprecated !== undefined) faults.push(`${path}: deprecated: ${deprecated}`)
}
for (const group of Object.values(v.parse(manifest, read('package.json')))) {
  for (const [name, version] of Object.entries(group))
    if (!/^\d+\.\d+\.\d+[\w.-]*$/.test(version)) faults.push(`${name}: ${version} is a range, not a version`)
}

/**
 * Adds the advisories of the registry about the packages that a server installs. Without an answer
 * of the registry the check prints a note and passes.
 */
function audit(): void {
  const words = ['audit', '--omit=dev', '--json', '--audit=true']
  const { stdout } = spawnSync('npm', words, { encoding: 'utf8', timeout: AUDIT_DEADLINE_MS })
  let answer: unknown
  try {
    answer = JSON.parse(stdout)
  } catch {
    answer = undefined
  }
  const { success, output } = v.safeParse(report, answer)
  if (!success) {
    console.log(
      'advisories: not checked, because the registry gave no answer. On a host that reaches it, run: npm audit --omit=dev',
    )
    return
  }
  const { vulnerabilities } = output.metadata
  for (const severity of SEVERE)
    if ((vulnerabilities[severity] ?? 0) > 0)
      faults.push(`${vulnerabilities[severity]} advisories of severity ${severity}: see npm audit --omit=dev`)
}
audit()

for (const fault of faults) console.log(fault)
process.exitCode = faults.length === 0 ? 0 : 1
