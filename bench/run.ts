import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { arch, cpus, release, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'
import { BENCHES, type Bench } from './benches.ts'
import { installedVersion, versionHere } from './debian-programs.ts'
import { chartsOf, keptResults, RESULTS } from './report/kept-results.ts'
import { parseReport, REPORT_VARIABLE } from './report/report.ts'
import { type Machine, type Result, resultsPage } from './report/results-page.ts'
import { filledIn } from './scale/scale-page.ts'

/** USER_HZ is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100
const folder = new URL('.', import.meta.url).pathname

const HELP = `npm run bench -- [BENCH ...] [--rounds N] [--quick] [--page]

Measures auth-relay and every peer on this host alternately, and writes bench/RESULTS.md with its charts. Installs nothing,
and prints the Debian packages that are missing. Benches that are not named keep the results of their last run.

  --rounds N   rounds of each measurement (default 5)
  --quick      one short round as a smoke test; writes no results
  --page       writes the page from the kept results, without a run
  --stepwise   waits for a line on standard input before each part of a long bench, so that other work can run first

Benches: ${BENCHES.map(({ name }) => name).join(' ')}`

const OPTIONS = {
  rounds: { type: 'string', default: '5' },
  quick: { type: 'boolean', default: false },
  page: { type: 'boolean', default: false },
  stepwise: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const

const chosen = readArguments()
if (typeof chosen === 'string') {
  console.error(`${chosen}\n\n${HELP}`)
  process.exitCode = 100
} else if (chosen.help) console.log(HELP)
else if (chosen.page) writePage()
else await runAll(chosen)

/** The request of the command line, or its fault. */
function readArguments() {
  try {
    const { values, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS })
    const unknown = positionals.filter(name => BENCHES.every(bench => bench.name !== name))
    if (unknown.length > 0) return `no bench ${unknown.join(', ')}`
    const rounds = values.quick ? 1 : Number(values.rounds)
    if (!Number.isInteger(rounds) || rounds < 1) return 'rounds must be a number from 1 on'
    return {
      ...values,
      rounds,
      benches: BENCHES.filter(({ name }) => positionals.length === 0 || positionals.includes(name)),
    }
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

type Chosen = Exclude<ReturnType<typeof readArguments>, string>

async function runAll({ benches, ...how }: Chosen): Promise<void> {
  printPackages(benches)
  for (const bench of benches) {
    const missing = bench.needs.filter(name => installedVersion(name) === undefined)
    if (missing.length > 0)
      console.log(`${bench.name}: left out, because these packages are missing: ${missing.join(' ')}`)
    else if (!(await runBench(bench, how))) process.exitCode = 1
  }
  if (!how.quick) writePage()
}

/** Prints the version of each peer, the missing packages, and the command that installs them. */
function printPackages(benches: readonly Bench[]): void {
  const missing = new Set<string>()
  for (const { name, peers, needs } of benches) {
    const versions = peers.map(peer => `${peer.name} ${versionHere(peer) ?? '(missing)'}`)
    console.log(`${name}: ${versions.length === 0 ? 'no peers' : `peers: ${versions.join(', ')}`}`)
    for (const peer of peers) if (peer.installed && versionHere(peer) === undefined) missing.add(peer.debianPackage)
    for (const need of needs) if (installedVersion(need) === undefined) missing.add(need)
  }
  const unpacked = benches.flatMap(({ peers }) => peers.filter(peer => !peer.installed).map(peer => peer.debianPackage))
  if (missing.size > 0) {
    console.log(`To install the missing packages: apt-get install --no-install-recommends ${[...missing].join(' ')}`)
  }
  if (unpacked.length > 0) {
    console.log(`Unpacked into a folder, which is an overlay on /usr for their processes only: ${unpacked.join(' ')}`)
    if (process.geteuid?.() !== 0) console.log('These packages are left out, because the overlay needs root.')
  }
}

/** Runs one bench in a separate process. False if the bench failed; its last results then stay. */
async function runBench(bench: Bench, { rounds, quick, stepwise }: Omit<Chosen, 'benches'>): Promise<boolean> {
  const directory = temporaryDirectory()
  const file = `${directory.path}/report.json`
  const args = [...bench.args(rounds, quick), ...(stepwise && bench.hasSteps ? ['--stepwise'] : [])]
  console.log(`\n${bench.title}: node bench/${scriptOf(bench)}.ts ${args.join(' ')}`)
  try {
    const [busyBefore, childrenBefore] = [busyTicks(), childTicks()]
    const began = performance.now()
    const child = spawn(process.execPath, [`${folder}${scriptOf(bench)}.ts`, ...args], {
      stdio: [stepwise ? 'inherit' : 'ignore', 'inherit', 'inherit'],
      env: { ...process.env, [REPORT_VARIABLE]: file },
    })
    const [code] = await once(child, 'exit')
    if (code !== 0 || !existsSync(file)) {
      console.error(`${bench.name} ${code === 0 ? 'left no report' : `failed (${String(code)})`}`)
      return false
    }
    const ticks = ((performance.now() - began) / 1000) * TICKS_PER_SECOND * cpus().length
    const others = busyTicks() - busyBefore - (childTicks() - childrenBefore)
    const result: Result = {
      ...parseReport(readFileSync(file, 'utf8')),
      title: bench.title,
      command: `npm run bench -- ${bench.name} --rounds ${rounds}`,
      machine: machine(),
      day: new Date().toISOString().slice(0, 10),
      otherWork: Math.max(0, others / ticks),
    }
    if (!quick) keep(result)
    return true
  } finally {
    directory.remove()
  }
}

function keep(result: Result): void {
  mkdirSync(RESULTS, { recursive: true })
  writeFileSync(new URL(`${result.bench}.json`, RESULTS), `${JSON.stringify(result, null, 2)}\n`)
}

function writePage(): void {
  mkdirSync(RESULTS, { recursive: true })
  const results = keptResults()
  for (const name of readdirSync(RESULTS)) if (name.endsWith('.svg')) rmSync(new URL(name, RESULTS))
  const charts = chartsOf(results)
  for (const [bench, svg] of charts) writeFileSync(new URL(`${bench}.svg`, RESULTS), svg)
  writeFileSync(new URL('RESULTS.md', import.meta.url), resultsPage(results, charts))
  console.log(`written: bench/RESULTS.md, ${charts.size} charts`)
  const scale = new URL('../docs/SCALE.md', import.meta.url)
  try {
    writeFileSync(scale, filledIn(readFileSync(scale, 'utf8'), results))
  } catch (error) {
    console.error(`docs/SCALE.md is unchanged: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  }
}

function machine(): Machine {
  const [cpu] = cpus()
  const osRelease = readFileSync('/etc/os-release', 'utf8')
  return {
    cpu: cpu?.model ?? arch(),
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    system: /^PRETTY_NAME="(.*)"$/m.exec(osRelease)?.[1] ?? 'Linux',
    node: process.version,
  }
}

/** Clock ticks (USER_HZ) in which the processors of the machine were busy: proc(5), /proc/stat. */
function busyTicks(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'latin1')
    .split('\n', 1)
    .flatMap(line => line.split(/\s+/).slice(1).map(Number))
  return user + nice + system + irq + softirq
}

/** Clock ticks of the children of this process that have ended, with their own children. */
function childTicks(): number {
  const fields = readFileSync('/proc/self/stat', 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return Number(fields[13]) + Number(fields[14])
}

function scriptOf({ name, script = name }: Bench): string {
  return script
}
