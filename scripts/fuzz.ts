import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { build, type Plugin } from 'esbuild'
import { CLIENT_HELLO } from '../test/soak/fuzz/client-hello.ts'
import { TARGETS } from '../test/soak/fuzz/targets.ts'

/**
 * Needs glibc 2.38 (Debian 13). It is no dependency of package.json, because Debian 12 cannot load
 * it. npm fetches it at its first use.
 */
const JAZZER = '@jazzer.js/core@4.0.0'
/** Longest input, in octets. */
const MAX_OCTETS = 256

const root = new URL('../', import.meta.url).pathname
const work = `${root}node_modules/.cache/fuzz`
const [name = 'all', seconds = '60'] = process.argv.slice(2)
const chosen = TARGETS.filter(target => name === 'all' || target.name === name)
if (chosen.length === 0 || !/^\d+$/.test(seconds)) {
  console.error(
    `Usage: node scripts/fuzz.ts [all|TARGET] [SECONDS]\nTargets: ${TARGETS.map(target => target.name).join(', ')}`,
  )
  process.exit(2)
}

/**
 * Replaces client-hello.ts by its value, because the module awaits the ClientHello while it loads,
 * and CommonJS cannot await.
 */
const clientHello: Plugin = {
  name: 'client-hello',
  setup: ({ onLoad }) => {
    onLoad({ filter: /client-hello\.ts$/ }, ({ path }) =>
      path.includes('/soak/')
        ? { contents: `export const CLIENT_HELLO = ${JSON.stringify(CLIENT_HELLO)}`, loader: 'ts' }
        : undefined,
    )
  },
}

/**
 * Fuzzes one target with coverage, beginning with its corpus. Afterwards the corpus has an input
 * for each part of the code that was reached. False if the run failed or found a fault.
 */
function fuzz(target: string): boolean {
  const corpus = `${root}test/corpus/${target}.txt`
  const inputs = `${work}/${target}`
  rmSync(inputs, { recursive: true, force: true })
  mkdirSync(inputs, { recursive: true })
  const known = existsSync(corpus) ? readFileSync(corpus, 'utf8').split('\n').slice(0, -1) : []
  for (const [index, line] of known.entries()) writeFileSync(`${inputs}/${index}`, Buffer.from(line, 'base64'))
  // Without these options the coverage leaves out all files below node_modules, such as entry.cjs.
  const instrumented = ['--includes', 'entry.cjs', '--excludes', '/nothing/']
  const libFuzzer = [`-max_len=${MAX_OCTETS}`, `-max_total_time=${seconds}`, `-artifact_prefix=${work}/${target}-`]
  const words = [`${work}/entry.cjs`, inputs, ...instrumented, '--sync', '--', ...libFuzzer]
  const { status } = spawnSync('npm', ['exec', '--yes', `--package=${JAZZER}`, '--', 'jazzer', ...words], {
    cwd: work,
    env: { ...process.env, FUZZ_TARGET: target },
    stdio: 'inherit',
  })
  if (status !== 0) return false
  const octets = readdirSync(inputs).map(file => readFileSync(`${inputs}/${file}`).toString('base64'))
  writeFileSync(corpus, `${[...new Set(octets)].sort().join('\n')}\n`)
  console.log(`${target}: ${octets.length} inputs in the corpus, ${known.length} before`)
  return true
}

await build({
  entryPoints: [`${root}test/soak/fuzz/jazzer-entry.ts`],
  outfile: `${work}/entry.cjs`,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  external: ['koffi'],
  plugins: [clientHello],
})
mkdirSync(`${root}test/corpus`, { recursive: true })
const failed = chosen.filter(target => !fuzz(target.name))
for (const target of failed)
  console.error(`${target.name}: failed. If an input causes a fault, it is in ${work}/${target.name}-*`)
process.exitCode = failed.length === 0 ? 0 : 1
