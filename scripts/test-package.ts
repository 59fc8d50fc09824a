import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { closingLine, PACKAGE_REPORT, readReport } from './closing-line.ts'
import { installPackages, missingPackages, PACKAGE_TOOLS } from './debian-packages.ts'

/** The tests of what is shipped: the Debian package on a Debian of its own, the npm package, the steps of the container. */
const missing = missingPackages(PACKAGE_TOOLS)
if (missing.length > 0) {
  console.log(`Debian packages that the tests of the package use and this host has not: ${missing.join(' ')}`)
  console.log(installPackages(missing) ? 'installed them' : 'not installed (root on Debian could)')
}
mkdirSync(new URL('.', PACKAGE_REPORT), { recursive: true })
const { status } = spawnSync(
  'vitest',
  [
    'run',
    '--root',
    '.',
    '--config',
    'test/package/vitest.config.ts',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${PACKAGE_REPORT.pathname}`,
  ],
  { stdio: 'inherit' },
)
const report = readReport(PACKAGE_REPORT)
console.log(closingLine(report))
process.exitCode = status === 0 && (process.env['CI'] !== 'true' || report.skipped === 0) ? 0 : 1
