import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { packageDeb } from './package-deb.ts'
import { writeBillOfMaterials } from './release/bill-of-materials.ts'
import { checkRelease, manifestOf } from './release/check-release.ts'
import { prepareRelease, releaseSubject } from './release/prepare-release.ts'

const root = new URL('..', import.meta.url).pathname
const packages = `${root}packages`

const USAGE = `Usage: node scripts/release.ts prepare VERSION   move the pending changes to VERSION; then read and commit them
       node scripts/release.ts --check           list the obstacles to a release
       node scripts/release.ts                   check, build packages/, tag; nothing is pushed
`

async function main([word, version, ...more]: readonly string[]): Promise<number> {
  if (word === 'prepare' && version !== undefined && more.length === 0) {
    prepareRelease(root, version, new Date())
    console.log(`Read CHANGELOG.md, then: git commit -am '${releaseSubject(version)}' && node scripts/release.ts`)
    return 0
  }
  if ((word !== undefined && word !== '--check') || version !== undefined) {
    console.error(USAGE)
    return 100
  }
  const refusals = await checkRelease(root)
  for (const refusal of refusals) console.error(`release: ${refusal}`)
  if (refusals.length > 0 || word === '--check') return refusals.length > 0 ? 1 : 0
  return release()
}

async function release(): Promise<number> {
  const { version } = manifestOf(root)
  rmSync(packages, { recursive: true, force: true })
  mkdirSync(packages)
  await packageDeb({ directory: packages, compression: ['-Zxz', '-z6'] })
  execFileSync('npm', ['pack', '--pack-destination', packages], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  writeBillOfMaterials(root, `${packages}/auth-relay-${version}.cdx.json`)
  const sums = readdirSync(packages).map(name => {
    const sum = createHash('sha256')
      .update(readFileSync(`${packages}/${name}`))
      .digest('hex')
    return `${sum}  ${name}\n`
  })
  writeFileSync(`${packages}/SHA256SUMS`, sums.join(''))
  execFileSync('git', ['tag', '--annotate', `v${version}`, '--message', `auth-relay ${version}`], { cwd: root })
  console.log(`v${version} is tagged. The files to publish are in ${packages}`)
  return 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(`release: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
