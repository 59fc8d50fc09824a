import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { build, type Plugin } from 'esbuild'
import { CLIENT_HELLO } from '../test/soak/fuzz/client-hello.ts'
import { TARGETS } from '../test/soak/fuzz/targets.ts'

/**
 * Needs glibc 2.38 (Debian 13). The module is fetched at its first use, because Debian 12 cannot
 * load it.
 */
const JAZZER = '@jazzer.js/core@4.0.0'
/** Longest input, in octets. */
const MAX_OCTETS = 256

const root = new URL('../', import.meta.url).pathname
const work = `${root}node_modules/.cache/fuzz`
const [name = 'all', seconds = '60'] = process.argv.slice(2)
const chosen = TARGETS.filter(target => name === 'all' || target.name === name)
if (chosen.length === 0 || !/^\d+$/.test(seconds)) {
  console.error(`node scripts/fuzz.ts [all|TARGET] [SECONDS]: ${TARGETS.map(target => target.name).join(', ')}`)
  process.exit(2)
}

/** That module awaits a greeting of the runtime when it is loaded, which CommonJS cannot do. */
const greeting: Plugin = {
  name: 'greeting',
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
 * for each part of the code that was reached.
 */
function follow(target: string): boolean {
  const corpus = `${root}test/corpus/${target}.txt`
  const inputs = `${work}/${target}`
  rmSync(inputs, { recursive: true, force: true })
  mkdirSync(inputs, { recursive: true })
  const known = existsSync(corpus) ? readFileSync(corpus, 'utf8').split('\n').slice(0, -1) : []
  for (const [index, line] of known.entries()) writeFileSync(`${inputs}/${index}`, Buffer.from(line, 'base64'))
  // Without these options the coverage leaves out everything below node_modules.
  const watched = ['--includes', 'entry.cjs', '--excludes', '/nothing/']
  const libFuzzer = [`-max_len=${MAX_OCTETS}`, `-max_total_time=${seconds}`, `-artifact_prefix=${work}/${target}-`]
  const words = [`${work}/entry.cjs`, inputs, ...watched, '--sync', '--', ...libFuzzer]
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
  plugins: [greeting],
})
mkdirSync(`${root}test/corpus`, { recursive: true })
const failed = chosen.filter(target => !follow(target.name))
for (const target of failed) console.error(`${target.name}: failed; the input is ${work}/${target.name}-*`)
process.exitCode = failed.length === 0 ? 0 : 1
