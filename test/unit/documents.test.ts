import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { sentencesOf } from '../../scripts/prose/rules.ts'
import { commandTree } from '../../src/auth-relay/command-line.ts'
import { LOG_LEVELS } from '../../src/base/log.ts'
import { LOG_FIELDS, type LogEventRow } from '../../src/base/log-events/row.ts'
import { LOG_EVENTS } from '../../src/base/log-events.ts'
import { parseSettings, SECTIONS } from '../../src/settings/settings.ts'

const root = new URL('../..', import.meta.url).pathname
const DOCUMENTS = [
  'README.md',
  ...readdirSync(`${root}docs`)
    .filter(name => name.endsWith('.md'))
    .map(name => `docs/${name}`),
]
/** Other documents, whose links, named files and commands are checked. */
const MORE_DOCUMENTS = [
  'CONTRIBUTING.md',
  'SECURITY.md',
  'bench/README.md',
  ...globSync(['docs/spec/*.md', 'docs/decisions/*.md'], { cwd: root }).sort(),
]
const inDocs = (name: string): string => `docs/${name}.md`
const textOf = (name: string): string => readFileSync(`${root}${name}`, 'utf8')

/** Returns the code blocks of a language; the default is every language. */
const blocks = (text: string, language = '\\w*'): string[] =>
  [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, block = '']) => block)
const spans = (text: string): string[] =>
  [...text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/`([^`\n]+)`/g)].map(([, span = '']) => span)

/** The anchor of a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\w\s-]/g, '')
    .trim()
    .replaceAll(' ', '-')
const anchors = (text: string): string[] =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchorOf(heading.replaceAll('`', '')))

const program = await commandTree({ environment: {}, print: () => {}, isTerminal: false, columns: 80 }, () => {})

type Subject = 'settings' | 'commands' | 'named settings' | 'links' | 'files' | 'metrics'

/** Documents without a subject. Every other document must contain something of it. */
const WITHOUT: Readonly<Record<Subject, readonly string[]>> = {
  settings: ['ARCHITECTURE', 'ENDURANCE', 'GLOSSARY', 'LOG-EVENTS', 'PROMISES', 'SCALE', 'WIRE'].map(inDocs),
  commands: ['PROMISES'].map(inDocs),
  'named settings': ['CLUSTER', 'ENDURANCE', 'PROMISES'].map(inDocs),
  links: ['GLOSSARY', 'WIRE'].map(inDocs),
  files: ['README.md', ...['GLOSSARY', 'MIGRATING'].map(inDocs)],
  // The table of alarms is the only place that names them.
  metrics: DOCUMENTS.filter(name => name !== 'docs/OPERATING.md'),
}

describe.each([...DOCUMENTS, ...MORE_DOCUMENTS])('%s', name => {
  const text = textOf(name)
  const isMore = MORE_DOCUMENTS.includes(name)
  /** Checks the found items of a subject, and that there are some. */
  const checkEach = <Found>(subject: Subject, found: readonly Found[], check: (each: Found) => void): void => {
    expect(isMore || found.length > 0 || WITHOUT[subject].includes(name), `${name} has some ${subject}`).toBe(true)
    for (const each of found) check(each)
  }

  test('its settings are valid', () => {
    checkEach('settings', blocks(text, 'toml'), block => {
      expect(() => parseSettings(block, block)).not.toThrow()
    })
  })

  test('its commands exist, with their options', () => {
    const lines = [...blocks(text, 'sh').flatMap(block => block.split('\n')), ...spans(text)]
    const commands = lines.flatMap(line =>
      [...line.replace(/(^|\s)#.*$/, '').matchAll(/(?:^|[|;&(]\s*)auth-relay ((?:(?!&&|\||;|>).)+)/g)].map(
        ([, words = '']) => words.trim().split(/\s+/),
      ),
    )
    checkEach(
      'commands',
      commands.filter(([verb = '']) => !verb.startsWith('-')),
      ([verb = '', ...words]) => {
        const named = program.commands.find(each => each.name() === verb)
        expect(named?.name(), `auth-relay ${verb} ${words.join(' ')}`).toBe(verb)
        const command = named?.commands.find(each => each.name() === words[0]) ?? named
        const known = [...(command?.options ?? []).flatMap(({ long }) => (long === undefined ? [] : [long])), '--help']
        for (const word of words.filter(each => /^\[?--[a-z]/.test(each))) {
          expect(known, `auth-relay ${verb}`).toContain(word.replaceAll(/[[\]]/g, ''))
        }
      },
    )
  })

  test('the settings that it names by section exist', () => {
    const sections = Object.values(SECTIONS)
    const named = spans(text).flatMap(span => {
      const [, section = '', setting = ''] = /^([a-z-]+)\.([a-z_]+)(?: = .*)?$/.exec(span) ?? []
      const found = sections.find(each => each.name === section && section !== '')
      return found === undefined ? [] : [{ span, rows: Object.keys(found.rows), setting }]
    })
    checkEach('named settings', named, ({ span, rows, setting }) => {
      expect(rows, span).toContain(setting)
    })
  })

  test('the targets of its links exist', () => {
    const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target)
    // The page of figures is written by npm run bench.
    const own = targets.filter(target => !/^https?:/.test(target) && !target.endsWith('bench/RESULTS.md'))
    checkEach('links', own, target => {
      const [file = '', anchor] = target.split('#')
      const path = file === '' ? name : join(dirname(name), file)
      expect(existsSync(`${root}${path}`), `${name}: ${target}`).toBe(true)
      if (anchor !== undefined) expect(anchors(textOf(path)), target).toContain(anchor)
    })
  })

  test('the files of this package that it names exist', () => {
    const lines = blocks(text, 'sh').flatMap(block => block.replaceAll(/#.*$/gm, '').split(/\s+/))
    // A word in capitals stands for a name, as in src/ROOM/.
    const files = [...spans(text), ...(isMore ? lines : [])].filter(
      span => /^(deploy|docs|sql|src|bench|scripts|test)\/[\w./-]+$/.test(span) && !/\b(ROOM|NAME)\b/.test(span),
    )
    checkEach('files', files, file => {
      expect(existsSync(`${root}${file}`), file).toBe(true)
    })
  })

  test('the metrics that it names for Prometheus are counted', () => {
    const metrics = textOf('src/authd/metrics.ts')
    const named = spans(text).filter(span => /^authd_[a-z_]+$/.test(span) && !Object.hasOwn(LOG_EVENTS, span))
    checkEach('metrics', named, metric => {
      expect(metrics).toContain(`'${metric}'`)
    })
  })
})

/** Every document in Markdown that people write. */
const ALL_DOCUMENTS = globSync(['*.md', 'bench/README.md', 'docs/**/*.md', 'src/**/*.md'], { cwd: root }).sort()
const MAX_COLUMNS = 160

test('a line of a document has at most 160 columns, except in tables and code blocks', () => {
  expect(ALL_DOCUMENTS.length).toBeGreaterThan(40)
  const wide = ALL_DOCUMENTS.flatMap(name => {
    const text = textOf(name).replaceAll(/^ *```[\s\S]*?^ *```/gm, code => '\n'.repeat(code.split('\n').length - 1))
    return text
      .split('\n')
      .flatMap((line, index) => (line.length > MAX_COLUMNS && !line.startsWith('|') ? [`${name}:${index + 1}`] : []))
  })
  expect(wide).toEqual([])
})

/** Spans of the form `name=value` that are not of the log, each with its meaning. */
const OTHER_PAIRS: ReadonlyMap<string, string> = new Map([
  ['default_action=DUNNO', 'setting of Postfix'],
  ['age=SECONDS', 'field of a login event, see WIRE'],
])

const isEvent = (name: string): name is keyof typeof LOG_EVENTS => Object.hasOwn(LOG_EVENTS, name)

test('the log events and log fields that documents name exist', () => {
  const named = DOCUMENTS.flatMap(name =>
    spans(textOf(name)).flatMap(span => {
      const [, first = '', rest = ''] = /^(\w+)((?: [a-z_]+=\S+)*)$/.exec(span.replace(/^event=/, '')) ?? []
      const event = isEvent(first) ? first : undefined
      const isLine = /^event=/.test(span) || /^[a-z_]+=[^\s="'$]\S*$/.test(span) || (event !== undefined && rest !== '')
      return isLine && !OTHER_PAIRS.has(span) ? [{ name, span, event }] : []
    }),
  )
  expect(named.length).toBeGreaterThan(10)
  const unknown = named.filter(({ span, event }) => {
    const fields: readonly string[] = event === undefined ? Object.keys(LOG_FIELDS) : LOG_EVENTS[event].fields
    return [...span.matchAll(/(?:^| )([a-z_]+)=/g)].some(([, field = '']) =>
      field === 'event' ? event === undefined : !fields.includes(field),
    )
  })
  expect(unknown).toEqual([])
})

/** Values of a log field that has fixed values: those in its meaning. */
const valuesOf = (field: string): readonly string[] => {
  if (field === 'level') return LOG_LEVELS
  const isField = (name: string): name is keyof typeof LOG_FIELDS => Object.hasOwn(LOG_FIELDS, name)
  const list = isField(field) ? /^[^`]*: (`\w+`.*)$/.exec(LOG_FIELDS[field])?.[1] : undefined
  return list === undefined ? [] : spans(list)
}

/** Values in the examples of log lines in a text that the programs do not log. */
function wrongValues(text: string): string[] {
  const rows: readonly (readonly [string, LogEventRow])[] = Object.entries(LOG_EVENTS)
  const lines = [...spans(text), ...text.split('\n').filter(line => / event=/.test(line))]
  return lines.flatMap(line => {
    const [, event = ''] = /^.*\bevent=([a-z_]+)/.exec(line) ?? /^([a-z_]+)(?: |$)/.exec(line) ?? []
    const reasons = rows.flatMap(([name, row]) => (!isEvent(event) || name === event ? (row.reasons ?? []) : []))
    const isLine = isEvent(event) || /^(?:[a-z_]+=\S+(?: |$))+$/.test(line)
    const pairs = isLine ? [...line.matchAll(/(?:^|\s)([a-z_]+)=([\w-]+)(?=\s|$)/g)] : []
    return pairs
      .filter(([, field = '', value = '']) => {
        const known = field === 'reason' ? reasons : valuesOf(field)
        return (field === 'reason' || known.length > 0) && !known.includes(value)
      })
      .map(([, field, value]) => `${event} ${field}=${value}`.trim())
  })
}

test('the values of log fields in the examples of documents can be logged', () => {
  const named = [...DOCUMENTS, 'CHANGELOG.md', 'SECURITY.md']
  expect(named.flatMap(name => wrongValues(textOf(name)).map(wrong => `${name}: ${wrong}`))).toEqual([])
})

test.each([
  ['`front_ended reason=early_replies`', 'front_ended reason=early_replies'],
  ['`event=relay_refused reason=idle`', 'relay_refused reason=idle'],
  ['`event=grant_stored reason=soon`', 'grant_stored reason=soon'],
  ['`reason=timeout`', 'reason=timeout'],
  ['`grant=stored`', 'grant=stored'],
  ['```\npopup: level=note event=login_failed reason=temp\n```', 'login_failed level=note'],
  ['```\nauthd: level=info event=grant_stored source=udp\n```', 'grant_stored source=udp'],
])('a value that cannot be logged is found in %j', (text, wrong) => {
  expect(wrongValues(text)).toEqual([wrong])
})

test('the lists of documents without a subject name documents that exist', () => {
  expect(Object.values(WITHOUT).flatMap(names => names.filter(name => !DOCUMENTS.includes(name)))).toEqual([])
})

test('test/unit/ has a folder for each room of src/, as CONTRIBUTING says', () => {
  const foldersOf = (path: string): string[] =>
    readdirSync(`${root}${path}`, { withFileTypes: true }).flatMap(entry => (entry.isDirectory() ? [entry.name] : []))
  const rooms = foldersOf('src')
  expect(rooms.length).toBeGreaterThan(10)
  expect(rooms.filter(room => !foldersOf('test/unit').includes(room))).toEqual([])
})

test('each decision has a unique number, and its title contains the number', () => {
  const names = readdirSync(`${root}docs/decisions`).filter(name => name !== 'README.md')
  expect(names.length).toBeGreaterThan(0)
  for (const [index, name] of names.sort().entries()) {
    expect(name).toMatch(new RegExp(`^${String(index + 1).padStart(4, '0')}-`))
    expect(textOf(`docs/decisions/${name}`)).toMatch(new RegExp(`^# ${index + 1}\\. `))
  }
})

test('each decision, and each second decision of a page, has its date, status and parts', () => {
  const parts = readdirSync(`${root}docs/decisions`)
    .filter(name => name !== 'README.md')
    .flatMap(name =>
      textOf(`docs/decisions/${name}`)
        .split(/^(?=##? )/m)
        .map(part => ({ name, title: part.slice(0, part.indexOf('\n')), part })),
    )
  expect(parts.length).toBeGreaterThan(20)
  const incomplete = parts.flatMap(({ name, title, part }) => {
    const needs = [
      /^\n?Date: \d{4}-\d{2}-\d{2}\. Status: (?:accepted|replaced by decision \d+)\.$/m,
      /^\*\*Context\.\*\*/m,
      /^\*\*Decision\.\*\*/m,
      /^\*\*Consequences\.\*\*/m,
      /^\*\*Alternatives(?: tried| not tried)?\b/m,
    ]
    const missing = needs.filter(need => !need.test(part)).map(String)
    return missing.length === 0 ? [] : [{ name, title, missing }]
  })
  expect(incomplete).toEqual([])
})

describe('the glossary', () => {
  const [terms = ''] = textOf('docs/GLOSSARY.md').split('## Words that are not used')
  const rows = [...terms.matchAll(/^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm)]
    .map(([, term = '', meaning = '', source = '']) => ({ term, meaning, source }))
    .filter(({ term }) => term !== 'term' && term !== '---')

  test('explains each term in one sentence', () => {
    expect(rows.length).toBeGreaterThan(50)
    expect(rows.filter(({ meaning }) => sentencesOf(meaning).length !== 1).map(({ term }) => term)).toEqual([])
    expect(rows.filter(({ meaning }) => !meaning.endsWith('.'))).toEqual([])
  })

  test('names a source for each term', () => {
    expect(rows.filter(({ source }) => !/[a-z]{2}/i.test(source)).map(({ term }) => term)).toEqual([])
  })

  test('has the words for the parts of the source', () => {
    expect(rows.map(({ term }) => term)).toEqual(expect.arrayContaining(['room', 'floor']))
  })
})

describe('test/mutation/RESULT.md', () => {
  const rows = [...textOf('test/mutation/RESULT.md').matchAll(/^\| `?([^` |]+)`? \| (\d+) \| (\d+) \| (\d+) \|/gm)].map(
    ([, name = '', ...counts]) => ({ name, counts: counts.map(Number) }),
  )
  const files = rows.filter(({ name }) => name !== 'all')

  test('each row names a file that exists', () => {
    expect(files.length).toBeGreaterThan(5)
    expect(files.filter(({ name }) => !existsSync(`${root}${name}`))).toEqual([])
  })

  test('each file of the mutated rooms has a row, and nine of ten of its mutants are killed', () => {
    const { mutate } = v.parse(
      v.object({ mutate: v.array(v.string()) }),
      JSON.parse(textOf('test/mutation/stryker.json')),
    )
    const mutated = [...globSync(mutate, { cwd: root }), 'src/wrap/decision.ts'].sort()
    expect(mutated.length).toBeGreaterThan(30)
    expect(files.map(({ name }) => name).sort()).toEqual(mutated)
    const belowBound = files.filter(({ counts: [killed = 0, survived = 0, unreached = 0] }) => {
      return killed < 0.9 * (killed + survived + unreached)
    })
    expect(belowBound).toEqual([])
  })

  test('the last row is the sum of the others', () => {
    const sum = [0, 1, 2].map(column => files.reduce((total, { counts }) => total + (counts[column] ?? 0), 0))
    expect(rows.find(({ name }) => name === 'all')?.counts).toEqual(sum)
  })
})
