import { globSync, readFileSync } from 'node:fs'
import { cruise } from 'dependency-cruiser'
import extractDepcruiseOptions from 'dependency-cruiser/config-utl/extract-depcruise-options'
import extractTsConfig from 'dependency-cruiser/config-utl/extract-ts-config'

/** What no import shows: words that only some rooms may write. */
const WORDS: readonly { readonly word: RegExp; readonly allowed: RegExp; readonly rule: string }[] = [
  {
    word: /\bprocess\.exit\(/,
    allowed: /^src\/(ucspi|process)\/|\/main\.ts$/,
    rule: 'process.exit belongs to main.ts, ucspi and process',
  },
  {
    word: /\b(SELECT\s.+\sFROM|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET)\b/i,
    allowed: /^src\/grants\//,
    rule: 'SQL text belongs to grants and sql/',
  },
]

const files = globSync('src/**/*.ts')
const broken: string[] = []

const options = await extractDepcruiseOptions('./.dependency-cruiser.cjs')
const { output } = await cruise(['src'], options, {}, { tsConfig: extractTsConfig('./tsconfig.json') })
if (typeof output === 'string') throw new Error('dependency-cruiser gave a text where a result was asked for')
for (const { from, to, rule } of output.summary.violations) broken.push(`${from} -> ${to}: ${rule.name}`)
const read = output.modules.filter(({ source }) => source.startsWith('src/') && source.endsWith('.ts')).length
if (read < files.length) broken.push(`only ${read} of ${files.length} modules of src/ were read: the check is blind`)

for (const file of files) {
  const lines = readFileSync(file, 'utf8').split('\n')
  for (const { word, allowed, rule } of WORDS) {
    if (allowed.test(file)) continue
    for (const [index, line] of lines.entries()) {
      if (word.test(line) && !/^\s*(\/\/|\*|\/\*)/.test(line)) broken.push(`${file}:${index + 1}: ${rule}`)
    }
  }
}

for (const line of broken) console.error(line)
console.log(`rooms: ${read} modules, ${broken.length} broken rules`)
process.exitCode = broken.length === 0 ? 0 : 1
