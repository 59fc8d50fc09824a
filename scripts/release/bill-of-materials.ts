import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import manifest from '../../package.json' with { type: 'json' }

const Bill = v.looseObject({
  metadata: v.looseObject({ component: v.looseObject({ 'bom-ref': v.string(), name: v.string() }) }),
  components: v.array(v.looseObject({ 'bom-ref': v.string(), name: v.string(), version: v.string() })),
  dependencies: v.array(v.looseObject({ ref: v.string(), dependsOn: v.optional(v.array(v.string()), []) })),
})
type Bill = v.InferOutput<typeof Bill>

const Names = v.optional(v.record(v.string(), v.unknown()), {})
const Lock = v.object({
  packages: v.record(
    v.string(),
    v.object({ version: v.optional(v.string()), dependencies: Names, optionalDependencies: Names }),
  ),
})
type Lock = v.InferOutput<typeof Lock>

/** Writes a CycloneDX document (SBOM) of the packages in a release, from package-lock.json. */
export function writeBillOfMaterials(root: string, path: string): void {
  const words = ['sbom', '--sbom-format=cyclonedx', '--sbom-type=application', '--package-lock-only']
  const text = execFileSync('npm', words, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1_048_576,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const bill = v.parse(Bill, JSON.parse(text))
  const lock = v.parse(Lock, JSON.parse(readFileSync(`${root}/package-lock.json`, 'utf8')))
  // npm uses the name of the directory, which can be any name for a checkout.
  bill.metadata.component.name = manifest.name
  // With --omit=dev npm omits packages that both the programs and a tool of the tests need, such as
  // valibot.
  const needed = neededRefs(bill, lock)
  const kept = {
    ...bill,
    components: bill.components.filter(component => needed.has(component['bom-ref'])),
    dependencies: bill.dependencies
      .filter(({ ref }) => needed.has(ref))
      .map(({ ref, dependsOn, ...rest }) => ({ ref, dependsOn: dependsOn.filter(each => needed.has(each)), ...rest })),
  }
  writeFileSync(path, `${JSON.stringify(kept, null, 2)}\n`)
}

/**
 * The reference of this package, and those of all packages that the programs need directly or
 * indirectly.
 */
function neededRefs({ metadata, components, dependencies }: Bill, { packages }: Lock): ReadonlySet<string> {
  const byRef = new Map(components.map(component => [component['bom-ref'], component]))
  const dependsOn = new Map(dependencies.map(({ ref, dependsOn: refs }) => [ref, refs]))
  /** Names that a package itself needs, without development and peer dependencies. */
  const namesOf = (ref: string): ReadonlySet<string> => {
    const component = byRef.get(ref)
    const entries =
      component === undefined
        ? [packages['']]
        : Object.entries(packages)
            .filter(
              ([path, { version }]) => path.endsWith(`node_modules/${component.name}`) && version === component.version,
            )
            .map(([, entry]) => entry)
    return new Set(
      entries.flatMap(entry =>
        entry === undefined ? [] : [...Object.keys(entry.dependencies), ...Object.keys(entry.optionalDependencies)],
      ),
    )
  }
  const needed = new Set<string>()
  const visit = (ref: string): void => {
    if (needed.has(ref)) return
    needed.add(ref)
    const names = namesOf(ref)
    for (const next of dependsOn.get(ref) ?? []) {
      if (names.has(byRef.get(next)?.name ?? '')) visit(next)
    }
  }
  visit(metadata.component['bom-ref'])
  return needed
}
