import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import * as v from 'valibot'
import manifest from '../../package.json' with { type: 'json' }

const Bill = v.looseObject({ metadata: v.looseObject({ component: v.looseObject({ name: v.string() }) }) })

/** Writes what a release is made of besides our own code, by package-lock.json, as a CycloneDX document (SBOM). */
export function writeBillOfMaterials(root: string, path: string): void {
  const words = ['sbom', '--sbom-format=cyclonedx', '--sbom-type=application', '--omit=dev', '--package-lock-only']
  const text = execFileSync('npm', words, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  const bill = v.parse(Bill, JSON.parse(text))
  // npm takes the name of the directory, which is anything for a checkout.
  bill.metadata.component.name = manifest.name
  writeFileSync(path, `${JSON.stringify(bill, null, 2)}\n`)
}
