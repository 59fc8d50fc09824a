import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'

/** Writes what a release is made of besides our own code, by package-lock.json, as a CycloneDX document (SBOM). */
export function writeBillOfMaterials(root: string, path: string): void {
  const words = ['sbom', '--sbom-format=cyclonedx', '--sbom-type=application', '--omit=dev', '--package-lock-only']
  writeFileSync(path, execFileSync('npm', words, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] }))
}
