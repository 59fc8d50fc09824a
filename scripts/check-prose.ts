import { globSync, readFileSync } from 'node:fs'
import { type Block, readComments, readManualPage, readMarkdown } from './prose/read-prose.ts'
import { type Fault, findFaults, readReplacements } from './prose/rules.ts'

const root = new URL('../', import.meta.url).pathname
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8')

const CHECKED = [
  '*.md',
  'bench/README.md',
  'docs/*.md',
  'docs/decisions/*.md',
  'docs/man/*.[1-8]',
  'docs/spec/*.md',
  'src/**/*.md',
  'src/**/*.ts',
]

/** Texts that are not yet plain: files, and rooms that end with a slash. The list only shrinks. */
const UNCHECKED = 'scripts/prose/unchecked.txt'

/** The section of the glossary that names the words which the rules refuse. */
const REFUSED_WORDS = 'Words that are not used'

/** Path of each text that the rules apply to, in order. */
export const proseFiles = (): string[] => globSync(CHECKED, { cwd: root }).sort()

/** Entries of the list of texts that are not yet plain. */
export const uncheckedEntries = (): string[] =>
  read(UNCHECKED)
    .split('\n')
    .filter(line => line !== '')

export const isCovered = (path: string, entry: string): boolean =>
  entry.endsWith('/') ? path.startsWith(entry) : path === entry

function blocksOf(path: string): Block[] {
  if (path.endsWith('.md')) return readMarkdown(read(path))
  return path.endsWith('.ts') ? readComments(read(path)) : readManualPage(read(path))
}

const replacements = readReplacements(read('docs/GLOSSARY.md'))

/** All faults of a text. */
export const faultsOf = (path: string): Fault[] =>
  blocksOf(path)
    .filter(({ section }) => !section.includes(REFUSED_WORDS))
    .flatMap(block => findFaults(block, replacements))

if (import.meta.main) {
  const paths = process.argv.slice(2)
  const files = proseFiles()
  const unchecked = uncheckedEntries()
  let count = 0
  let faulty = 0
  const report = (path: string): void => {
    count++
    const faults = faultsOf(path)
    if (faults.length > 0) faulty++
    for (const { line, rule, found, advice } of faults) console.log(`${path}:${line}: ${rule}: "${found}": ${advice}`)
  }

  for (const path of paths.length > 0 ? paths : files)
    if (paths.length > 0 || !unchecked.some(entry => isCovered(path, entry))) report(path)
  if (paths.length === 0)
    for (const entry of unchecked)
      if (!files.some(path => isCovered(path, entry) && faultsOf(path).length > 0)) {
        faulty++
        console.log(`${UNCHECKED}: ${entry} has no fault: take it off the list`)
      }
  console.log(`prose: ${count} texts checked, ${unchecked.length} entries not yet plain, ${faulty} with faults`)
  process.exitCode = faulty === 0 ? 0 : 1
}
