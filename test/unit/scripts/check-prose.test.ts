import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { wideComments } from '../../../scripts/prose/comment-width.ts'
import { readComments, readManualPage, readMarkdown, readMessages } from '../../../scripts/prose/read-prose.ts'
import { findFaults, readReplacements, sentencesOf } from '../../../scripts/prose/rules.ts'

const glossary = readFileSync(new URL('../../../docs/GLOSSARY.md', import.meta.url), 'utf8')
const replacements = readReplacements(glossary)
const rulesOf = (markdown: string): string[] =>
  readMarkdown(markdown)
    .flatMap(block => findFaults(block, replacements))
    .map(({ rule }) => rule)

const examples = readFileSync(new URL('prose-examples.md', import.meta.url), 'utf8')
  .split('\n')
  .filter(line => line.startsWith('| '))
  .slice(2)
  .map(line => line.split(' | ').map(cell => cell.replaceAll(/^\| | \|$/g, '')))

test('the fixture is read whole', () => {
  expect(examples).toHaveLength(55)
})

test.each(examples)('refuses: %s', before => {
  expect(rulesOf(before)).not.toEqual([])
})

test.each(examples.map(([, after]) => [after ?? '']))('accepts: %s', after => {
  expect(rulesOf(after)).toEqual([])
})

test('a sentence has at most 30 words', () => {
  const words = (count: number): string => `${Array.from({ length: count }, (_, index) => `n${index}`).join(' ')}.`
  expect(rulesOf(words(30))).toEqual([])
  expect(rulesOf(words(31))).toEqual(['length'])
})

test('a sentence has at most two passive verbs', () => {
  expect(rulesOf('The line is read and the name is compared.')).toEqual([])
  expect(rulesOf('The line is read, the name is compared, and the grant is written.')).toEqual(['passive'])
})

test('a dot ends a sentence before a small letter too, and an abbreviation does not', () => {
  expect(sentencesOf('Only fixes. popup announces, e.g. a login. Done')).toEqual([
    'Only fixes.',
    'popup announces, e.g. a login.',
    'Done',
  ])
})

test('a word of the glossary is refused outside code, in headings too', () => {
  expect(rulesOf('# The keeper')).toEqual(['glossary'])
  expect(rulesOf('The `keeper` starts.')).toEqual([])
})

test('the glossary replaces words', () => {
  expect(replacements.map(({ word }) => word)).toContain('keeper')
  expect(replacements.length).toBeGreaterThan(10)
})

test('comments are found wherever they stand, without strings, templates and directives', () => {
  const source = [
    "import a from 'a' // at the end of a line",
    '',
    '/**',
    ' * A summary',
    ' * in two lines.',
    ' *',
    ' * A second paragraph.',
    ' */',
    'export function f() {',
    '  // one comment',
    '  // in two lines',
    ['  const text = `// $', '{a /* inside */} no comment`'].join(''),
    '  // biome-ignore lint/a: why',
    "  return '/* no comment */' + /\\/\\/ no comment/",
    '  // before the brace',
    '}',
  ].join('\n')
  expect(readComments(source).map(({ line, text }) => [line, text])).toEqual([
    [1, 'at the end of a line'],
    [4, 'A summary in two lines.'],
    [7, 'A second paragraph.'],
    [10, 'one comment in two lines'],
    [12, 'inside'],
    [15, 'before the brace'],
  ])
})

test('messages are found in strings and templates, without SQL, tagged templates and short texts', () => {
  const source = [
    "fail('the file is missing: create it')",
    ['const text = `the file $', '{path} is missing\\n\\n  auth-relay init makes the file`'].join(''),
    'const sql = `SELECT a FROM b WHERE c`',
    'const page = html`<p>a page of the site</p>`',
    "const name = 'not a message'",
  ].join('\n')
  expect(readMessages(source).map(({ line, text }) => [line, text])).toEqual([
    [1, 'the file is missing: create it'],
    [2, 'the file CODE is missing'],
    [2, 'auth-relay init makes the file'],
  ])
})

test('a manual page is read without its examples, tags and fonts', () => {
  const page = [
    '.TH A 8',
    '.SH NAME',
    'a \\- b',
    '.TP',
    '\\fBx\\fR',
    'Text of',
    '.B name.',
    '.nf',
    'example',
    '.fi',
    'Last.',
  ]
  expect(readManualPage(page.join('\n')).map(({ line, text }) => [line, text])).toEqual([
    [3, 'a - b'],
    [6, 'Text of CODE.'],
    [11, 'Last.'],
  ])
})

/** A comment of `columns` columns behind `marker`. */
const comment = (marker: string, columns: number): string => `${marker} word ${'x'.repeat(columns)}`.slice(0, columns)

test.each([
  ['a.ts', '//'],
  ['a.ts', '  const a = 1 //'],
  ['a.mjs', '//'],
  ['a.c', '/*'],
  ['a.sql', '--'],
  ['a.sql', "  'x' --"],
  ['a.wat', ';;'],
  ['a.sh', '#'],
  ['deploy/runit/popup/run', '#'],
  ['a.service', '#'],
  ['a.yml', '  key: 1 #'],
])('%s: a comment behind "%s" has at most 100 columns', (path, marker) => {
  expect(wideComments(path, `\n${comment(marker, 100)}\n`)).toEqual([])
  expect(wideComments(path, `\n${comment(marker, 101)}\n`)).toEqual([2])
})

test('each line of a comment in several lines counts', () => {
  const text = `/**\n${comment(' *', 101)}\n * Short.\n${comment(' *', 101)}\n */\nconst a = 1\n`
  expect(wideComments('a.ts', text)).toEqual([2, 4])
})

test('code, text in strings, directives, single long words and other files have no limit', () => {
  const long = 'x y '.repeat(40)
  expect(wideComments('a.ts', `const a = '// ${long}'\n`)).toEqual([])
  expect(wideComments('a.ts', `const a = \`\n// ${long}\n\`\n`)).toEqual([])
  expect(wideComments('a.ts', `// biome-ignore lint/a: ${long}\nconst a = 1\n`)).toEqual([])
  expect(wideComments('a.ts', `// https://example.org/${'x'.repeat(100)}\n`)).toEqual([])
  expect(wideComments('a.md', `# ${long}\n`)).toEqual([])
})
