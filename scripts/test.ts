import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { text } from 'node:stream/consumers'
import { closingLine, REPORT, readReport } from './closing-line.ts'
import { installPackages, missingPackages } from './debian-packages.ts'

/** Runs all checks and tests (`npm test`). In CI a skipped test is a failure. */
const strict = process.env['CI'] === 'true'
const failed: string[] = []

/** Runs one check until it ends, and reports it. */
function check(name: string, command: string, ...args: string[]): void {
  const start = Date.now()
  const { status } = spawnSync(command, args, { stdio: 'inherit' })
  reportCheck(name, status, start)
}

/** Prints the result of a check. All checks are run, so that one run shows every fault. */
function reportCheck(name: string, status: number | null, start: number): void {
  console.log(`${status === 0 ? 'ok' : 'FAILED'}: ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`)
  if (status !== 0) failed.push(name)
}

/** Runs checks of one thread each, as many at once as there are cores. Each prints at its end. */
async function checkTogether(checks: readonly (readonly [name: string, ...command: string[]])[]): Promise<void> {
  const remaining = checks.values()
  const runNext = async (): Promise<void> => {
    for (const [name, command = '', ...args] of remaining) {
      const start = Date.now()
      const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
      const ended = new Promise<number | null>(resolve =>
        child.once('error', () => resolve(null)).once('close', resolve),
      )
      const [output, errors, status] = await Promise.all([text(child.stdout), text(child.stderr), ended])
      process.stdout.write(output + errors)
      reportCheck(name, status, start)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, runNext))
}

const missing = missingPackages()
if (missing.length > 0) {
  console.log(`Debian packages that the system tests need and that are missing on this host: ${missing.join(' ')}`)
  if (installPackages(missing)) console.log('The packages are installed.')
  else
    console.log(
      'They are not installed, because only root on Debian can. Tests that need them are skipped with the reason.',
    )
}

check('build', 'node', 'scripts/build.ts')
await checkTogether([
  ['types', 'tsc', '--noEmit', '-p', '.'],
  ['lint', 'biome', 'ci', '--error-on-warnings', '.'],
  ['rooms', 'node', 'scripts/checks/rooms.ts'],
  ['unused', 'knip'],
  ['dependencies', 'node', 'scripts/checks/dependencies.ts'],
  ['commits', 'node', 'scripts/checks/commits.ts'],
  ['prose', 'node', 'scripts/checks/prose.ts'],
  ['spelling', 'cspell', 'lint', '--no-progress'],
])
mkdirSync(new URL('.', REPORT), { recursive: true })
// If vitest writes no report, the counts of an earlier run must not be printed.
rmSync(REPORT, { force: true })
check('tests', 'vitest', 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${REPORT.pathname}`)

const report = existsSync(REPORT) ? readReport() : undefined
if (report === undefined) failed.push('test report')
else if (strict && report.skipped > 0) failed.push(`${report.skipped} tests were skipped, and in CI none may be`)
for (const name of failed) console.log(`FAILED: ${name}`)
console.log(report === undefined ? 'no test was counted, because vitest wrote no report' : closingLine(report))
process.exitCode = failed.length === 0 ? 0 : 1
