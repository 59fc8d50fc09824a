import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { faultsOf, messageFaultsOf, proseFiles } from '../../../scripts/checks/prose.ts'
import { wideComments } from '../../../scripts/prose/comment-width.ts'
import {
  readComments,
  readLineComments,
  readManualPage,
  readMarkdown,
  readMessages,
  readTitles,
} from '../../../scripts/prose/read-prose.ts'
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
  expect(examples).toHaveLength(60)
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

test('a word for persons is refused, except as a value in quotation marks', () => {
  expect(rulesOf('The gate answers nobody.')).toContain('person')
  expect(rulesOf('With "nobody" the gate relays mail of devices alone.')).toEqual([])
})

test('the glossary replaces words', () => {
  expect(replacements.map(({ word }) => word)).toContain('keeper')
  expect(replacements.length).toBeGreaterThan(10)
})

test('comments are found at any place, without strings, templates and directives', () => {
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

test('comments behind # and -- are found, without examples, settings that are switched off and tools’ directives', () => {
  const script = [
    '#!/bin/sh',
    '# A summary',
    '# in two lines:',
    '#   an example with the keeper',
    '#',
    '# A second paragraph.',
    'exec program # at the end',
    '#setting=value',
    '# shellcheck disable=SC2086',
    "echo 'no # comment'",
  ].join('\n')
  expect(readLineComments(script, '#').map(({ line, text }) => [line, text])).toEqual([
    [2, 'A summary in two lines:'],
    [6, 'A second paragraph.'],
    [7, 'at the end'],
  ])
  expect(readLineComments("-- A comment.\nSELECT '--' -- behind\n", '--').map(({ text }) => text)).toEqual([
    'A comment.',
    'behind',
  ])
})

test('titles are found in every form of a test, with inserted values as one word', () => {
  const source = [
    "describe('a group', () => {",
    "  test.each([1])('has %d', () => {})",
    ['  it(`has $', '{a}`, () => {})'].join(''),
    "  test.runIf(a)('runs $name', () => {})",
    '})',
    "describeWith([need], 'with a need', () => {})",
    "expect('not a title').toBe('either')",
  ].join('\n')
  expect(readTitles(source).map(({ line, text }) => [line, text])).toEqual([
    [1, 'a group'],
    [2, 'has CODE'],
    [3, 'has CODE'],
    [4, 'runs CODE'],
    [6, 'with a need'],
  ])
})

describe('a bad sentence is refused', () => {
  const BAD = 'Whoever asks the keeper waits.'

  test.each([
    ['src/wrap/a.ts', `/** ${BAD} */\nconst a = 1\n`],
    ['test/harness/a.ts', `// ${BAD}\nconst a = 1\n`],
    ['test/unit/a.test.ts', `const a = 1 // ${BAD}\n`],
    ['scripts/a.ts', `/** ${BAD} */\nconst a = 1\n`],
    ['bench/a.ts', `/** ${BAD} */\nconst a = 1\n`],
    ['sql/000001-a.sql', `-- ${BAD}\nSELECT 1;\n`],
    ['deploy/runit/popup/run', `#!/bin/sh\n# ${BAD}\nexec popup\n`],
    ['deploy/systemd/a.service', `[Service]\n# ${BAD}\nType=notify\n`],
    ['deploy/patroni/a.yml', `key: 1 # ${BAD}\n`],
    ['deploy/container/a.mjs', `// ${BAD}\n`],
    ['test/harness/a.sh', `#!/bin/sh\n# ${BAD}\n`],
    ['test/cluster/a.py', `# ${BAD}\n`],
    ['bench/a.c', `/* ${BAD} */\nint a;\n`],
    ['src/pop3d/a.wat', `;; ${BAD}\n(module)\n`],
    ['docs/a.md', `${BAD}\n`],
    ['docs/man/a.8', `.SH A\n${BAD}\n`],
  ])('in %s', (path, text) => {
    expect(faultsOf(path, text).map(({ rule }) => rule)).toEqual(expect.arrayContaining(['glossary', 'no-noun']))
    expect(faultsOf(path, text.replace(BAD, 'A client waits for the monitor.'))).toEqual([])
  })

  test.each([
    "test('whoever logs in waits', () => {})",
    "test.each([1])('the keeper counts to %d', () => {})",
    "property.prop([n])('what a starter says is read', () => {})",
    "describe('logins of its own', () => {})",
    ['it(`is given up after $', '{n} s`, () => {})'].join(''),
    `test('${'word '.repeat(25).trim()}', () => {})`,
  ])('in a title: %s', source => {
    expect(faultsOf('test/unit/a.test.ts', source)).toHaveLength(1)
    expect(faultsOf('src/a.ts', source)).toEqual([])
  })

  test.each(['src/wrap/a.ts', 'scripts/release/a.ts'])('in a message of %s', path => {
    const source = `fail('${BAD}')\n`
    expect(messageFaultsOf(path, source).map(({ rule }) => rule)).toEqual(
      expect.arrayContaining(['glossary', 'no-noun']),
    )
    expect(messageFaultsOf(path, source.replace(BAD, 'A client waits for the monitor.'))).toEqual([])
    expect(messageFaultsOf('test/unit/a.test.ts', source)).toEqual([])
  })

  test.each([
    ['sql/000001-a.sql', `COMMENT ON TABLE a IS '${BAD}';\n`],
    ['sql/000001-a.sql', `COMMENT ON COLUMN a.b IS\n  '${BAD} It is the gate''s.';\n`],
    ['deploy/runit/popup/finish', `#!/bin/sh\necho '${BAD}' >&2\n`],
    ['deploy/a.sh', `if a; then printf "%s: ${BAD}\\n" "$1"; fi\n`],
    ['bench/a.ts', `report.note('${BAD}')\n`],
    ['deploy/prometheus/a.rules.yml', `groups:\n  - rules:\n      - annotations:\n          summary: ${BAD}\n`],
    ['deploy/prometheus/a.rules.yml', `a:\n  description: >-\n    ${BAD}\n    It ends.\n`],
    ['deploy/container/a.yaml', `labels:\n  description: "${BAD}"\n`],
    ['deploy/grafana/a.json', `{ "panels": [{ "title": "Panel", "description": "${BAD}" }] }\n`],
    ['deploy/a.schema.json', `{ "properties": { "user": { "description": "${BAD}" } } }\n`],
    ['package.json', `{ "name": "a", "description": "${BAD}" }\n`],
  ])('in a text that %s prints or stores', (path, text) => {
    expect(messageFaultsOf(path, text).map(({ rule }) => rule)).toEqual(expect.arrayContaining(['glossary', 'no-noun']))
    expect(messageFaultsOf(path, text.replace(BAD, 'A client waits for the monitor.'))).toEqual([])
  })

  test('in any text of the package but the generated SQL', () => {
    const files = proseFiles()
    expect(files).toEqual(
      expect.arrayContaining([
        '.ci/run',
        'bench/gate/smtpd.c',
        'deploy/auth-relay.schema.json',
        'deploy/container/compose.yaml',
        'deploy/debian/postinst',
        'deploy/grafana/auth-relay.json',
        'deploy/patroni/patroni.yml',
        'deploy/prometheus/auth-relay.rules.yml',
        'docs/man/popup.8',
        'package.json',
        'README.md',
        'scripts/build.ts',
        'sql/000001-grants.sql',
        'src/wrap/main.ts',
        'test/harness/smtp/smtpd.sh',
        'test/unit/scripts/check-prose.test.ts',
        'vitest.config.ts',
      ]),
    )
    expect(files).not.toContain('sql/pop3authd.sql')
  })
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
