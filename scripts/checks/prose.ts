import { globSync, readFileSync } from 'node:fs'
import { commentedFiles, markerOf, wideComments } from '../prose/comment-width.ts'
import {
  type Block,
  readBlockComments,
  readComments,
  readDescriptions,
  readLineComments,
  readManualPage,
  readMarkdown,
  readMessages,
  readShellOutput,
  readTitles,
  readValues,
} from '../prose/read-prose.ts'
import { type Fault, findFaults, readReplacements } from '../prose/rules.ts'

const root = new URL('../../', import.meta.url).pathname
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8')

const DOCUMENTS = [
  '*.md',
  'bench/README.md',
  'deploy/**/*.json',
  'deploy/debian/*.8',
  'docs/*.md',
  'docs/decisions/*.md',
  'docs/man/*.[1-8]',
  'docs/spec/*.md',
  'package.json',
  'src/**/*.md',
  'test/mutation/RESULT.md',
  'test/transcripts/README.md',
]

/** Generated files. The rules apply to their sources. */
const GENERATED = new Set(['sql/pop3authd.sql'])

/** The section of the glossary that names the words which the rules refuse. */
const REFUSED_WORDS = 'Words that are not used'

/** Path of each text that the rules for prose apply to, in order. */
export const proseFiles = (): string[] =>
  [...new Set([...globSync(DOCUMENTS, { cwd: root }), ...commentedFiles(root)])]
    .filter(path => !GENERATED.has(path))
    .sort()

/** Blocks of a text: paragraphs of a document, comments of a program, or titles of tests. */
export function readBlocks(path: string, text: string): Block[] {
  if (path.endsWith('.md')) return readMarkdown(text)
  if (/\.[1-8]$/.test(path)) return readManualPage(text)
  const marker = markerOf(path)
  switch (marker) {
    case undefined:
      return []
    case '//':
      return path.startsWith('test/') ? [...readComments(text), ...readTitles(text)] : readComments(text)
    case '/*':
      return readBlockComments(text)
    default:
      return readLineComments(text, marker)
  }
}

const replacements = readReplacements(read('docs/GLOSSARY.md'))

/** Files with strings that are not messages, each with the reason. */
const NO_MESSAGES: ReadonlyMap<string, string> = new Map([
  ['src/auth-relay/demo/sample-maildrop.ts', 'sample mail, which has the style of a letter'],
  ['scripts/generate/man-pages.ts', 'manual pages, which are checked as pages'],
  ['scripts/prose/rules.ts', 'advice, which is shorter than a sentence'],
])

/**
 * Messages of a program: strings of TypeScript, descriptions in SQL, JSON and YAML, output of shell
 * scripts.
 */
function messagesOf(path: string, text: string): Block[] {
  if (NO_MESSAGES.has(path)) return []
  if (/^(?:src|scripts)\/.*\.ts$/.test(path)) return readMessages(text)
  // The sentences of a benchmark are the notes of bench/RESULTS.md. Its other strings are settings.
  if (/^bench\/.*\.ts$/.test(path)) return readMessages(text).filter(block => block.text.endsWith('.'))
  if (/\.(?:json|ya?ml)$/.test(path)) return readValues(text)
  const marker = markerOf(path)
  if (marker === '--') return readDescriptions(text)
  return marker === '#' ? readShellOutput(text) : []
}

/** Faults in the messages and help texts of a program. Columns of a help text repeat words. */
export const messageFaultsOf = (path: string, text: string): Fault[] =>
  messagesOf(path, text)
    .flatMap(block => findFaults(block, replacements))
    .filter(({ rule }) => rule !== 'write-good')

/** All faults of a text that stands in the file `path`. */
export const faultsOf = (path: string, text: string): Fault[] =>
  readBlocks(path, text)
    .filter(({ section }) => !section.includes(REFUSED_WORDS))
    .flatMap(block => findFaults(block, replacements))

/** Faults of a text, and of the width of its comments, as lines for standard output. */
function report(path: string): string[] {
  const text = read(path)
  const faults = [...faultsOf(path, text), ...messageFaultsOf(path, text)].map(
    ({ line, rule, found, advice }) => `${path}:${line}: ${rule}: "${found}": ${advice}`,
  )
  const wide = wideComments(path, text)
  return [...faults, ...wide.map(line => `${path}:${line}: width: wrap the comment at 100 columns`)]
}

if (import.meta.main) {
  const named = process.argv.slice(2)
  const paths = named.length > 0 ? named : proseFiles()
  let faulty = 0
  for (const path of paths) {
    const faults = report(path)
    if (faults.length > 0) faulty++
    for (const fault of faults) console.log(fault)
  }
  console.log(`prose: ${paths.length} texts checked, ${faulty} with faults`)
  process.exitCode = faulty === 0 ? 0 : 1
}
