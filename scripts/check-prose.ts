import { globSync, readFileSync } from 'node:fs'
import { matchesGlob } from 'node:path'
import { commentedFiles, wideComments } from './prose/comment-width.ts'
import { type Block, readComments, readManualPage, readMarkdown, readMessages } from './prose/read-prose.ts'
import { type Fault, findFaults, readReplacements } from './prose/rules.ts'

const root = new URL('../', import.meta.url).pathname
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8')

const CHECKED = [
  '*.md',
  'bench/**/*.ts',
  'bench/README.md',
  'docs/*.md',
  'docs/decisions/*.md',
  'docs/man/*.[1-8]',
  'docs/spec/*.md',
  'src/**/*.md',
  'src/**/*.ts',
]

/** The section of the glossary that names the words which the rules refuse. */
const REFUSED_WORDS = 'Words that are not used'

/** Path of each text that the rules for prose apply to, in order. */
export const proseFiles = (): string[] => globSync(CHECKED, { cwd: root }).sort()

/** The other comments are checked for their width alone. */
const isProse = (path: string): boolean => CHECKED.some(pattern => matchesGlob(path, pattern))

function blocksOf(path: string): Block[] {
  if (path.endsWith('.md')) return readMarkdown(read(path))
  return path.endsWith('.ts') ? readComments(read(path)) : readManualPage(read(path))
}

const replacements = readReplacements(read('docs/GLOSSARY.md'))

/** The sample messages of the demonstration are letters and not messages of a program. */
const SAMPLES = 'src/auth-relay/demo/sample-maildrop.ts'

/** Faults in the messages and help texts of a source file. Columns of a help text repeat words. */
const messageFaultsOf = (path: string): Fault[] =>
  path.startsWith('src/') && path.endsWith('.ts') && path !== SAMPLES
    ? readMessages(read(path))
        .flatMap(block => findFaults(block, replacements))
        .filter(({ rule }) => rule !== 'write-good')
    : []

/** All faults of a text. */
export const faultsOf = (path: string): Fault[] =>
  blocksOf(path)
    .filter(({ section }) => !section.includes(REFUSED_WORDS))
    .flatMap(block => findFaults(block, replacements))

/** Faults of a text, and of the width of its comments, as lines for standard output. */
function report(path: string): string[] {
  const faults = isProse(path)
    ? [...faultsOf(path), ...messageFaultsOf(path)].map(
        ({ line, rule, found, advice }) => `${path}:${line}: ${rule}: "${found}": ${advice}`,
      )
    : []
  const wide = wideComments(path, read(path))
  return [...faults, ...wide.map(line => `${path}:${line}: width: wrap the comment at 100 columns`)]
}

if (import.meta.main) {
  const named = process.argv.slice(2)
  const paths = named.length > 0 ? named : [...new Set([...proseFiles(), ...commentedFiles(root)])]
  let faulty = 0
  for (const path of paths) {
    const faults = report(path)
    if (faults.length > 0) faulty++
    for (const fault of faults) console.log(fault)
  }
  console.log(`prose: ${paths.length} texts checked, ${faulty} with faults`)
  process.exitCode = faulty === 0 ? 0 : 1
}
