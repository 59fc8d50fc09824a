import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseSettings, SECTIONS } from '../../../src/settings/settings.ts'
import { run } from '../../harness/processes/program.ts'
import { command, describeWith } from '../../harness/runner/describe-with.ts'
import { commandOf, type ProgramName } from '../../harness/stack.ts'

const directory = new URL('../../../docs/man/', import.meta.url).pathname
const pages = readdirSync(directory)

/** The text of a manual page, without the names that roff uses. */
const pageOf = (name: string): string =>
  readFileSync(`${directory}${name}`, 'utf8')
    .replaceAll(/\\f[BIR]|\\&/g, '')
    .replaceAll('\\-', '-')
    .replaceAll('\\e', '\\')

const PROGRAMS: readonly ProgramName[] = ['auth-relay', 'authd', 'pop3d', 'popup', 'sslwrap', 'wrap']

test('every program has its page, and every page its program', () => {
  expect(pages.toSorted()).toEqual([...PROGRAMS.map(name => `${name}.8`), 'auth-relay.toml.5'].toSorted())
})

test.each(PROGRAMS)('everything in %s --help is in its page: options, variables, signals, arguments', async name => {
  const { lines, ending } = await run(commandOf(name, '--help'))
  expect(ending?.code).toBe(0)
  const page = pageOf(`${name}.8`)
  const help = lines.join('\n')
  const wordsOf = (pattern: RegExp): string[] => [...new Set([...help.matchAll(pattern)].map(([word]) => word))]
  const options = wordsOf(/(?<=[\s[,|])--?[A-Za-z][A-Za-z-]*/g)
  expect(options).not.toEqual([])
  for (const option of options) expect(page).toMatch(new RegExp(`(^|[\\s,.|[])${option}(?![\\w-])`, 'm'))
  for (const variable of wordsOf(/\b[A-Z][A-Z0-9]*_[A-Z_]+\b|\bTCPREMOTEIP\b/g)) expect(page).toContain(variable)
  const [, signals = ''] = /^Signals: (.*)$/m.exec(help) ?? []
  for (const [signal] of signals.matchAll(/\b[A-Z]+[12]?\b(?= )/g))
    expect(page).toMatch(new RegExp(`^\\.B.*\\b${signal}\\b`, 'm'))
})

test('each verb of auth-relay --help has its section, in the same order', async () => {
  const { lines } = await run(commandOf('auth-relay', '--help'))
  const begin = lines.indexOf('Commands:')
  const verbs = lines
    .slice(begin + 1)
    .flatMap(line => /^ {2}([a-z][a-z-]+)/.exec(line)?.[1] ?? [])
    .filter(verb => verb !== 'help' && verb !== 'auth-relay')
  // The actions of a verb, such as `device add`, have sections behind that of the verb.
  const sections = [...pageOf('auth-relay.8').matchAll(/^\.SS ([a-z-]+)/gm)].map(([, verb]) => verb)
  expect([...new Set(sections)]).toEqual(verbs)
})

describeWith([command('groff', 'groff-base')], 'the pages as roff', () => {
  test.each(pages)('%s has no fault, and no line that is too long for 100 columns', async name => {
    const checked = await run(['groff', '-man', '-Tutf8', '-ww', '-z', `${directory}${name}`])
    expect(checked.lines).toEqual([])
    const shown = await run(['groff', '-man', '-Tutf8', '-P-cbou', '-rLL=78n', `${directory}${name}`])
    const examples = shown.lines.filter(line => line.length > 100)
    expect(examples).toEqual([])
  })

  /** The lines of a page on a terminal. */
  const rendered = async (name: string): Promise<readonly string[]> =>
    (await run(['groff', '-man', '-Tutf8', '-P-cbou', '-rLL=78n', '-rHY=0', `${directory}${name}`])).lines

  test('auth-relay.toml(5): every setting is shown as a line that can be copied into the file, with its default', async () => {
    const defaults = new Map(
      Object.values(SECTIONS).flatMap(({ name, rows }) =>
        Object.entries(rows).map(([row, { default: fallback }]): [string, unknown] => [`${name}.${row}`, fallback]),
      ),
    )
    let section: string | undefined
    const shown: string[] = []
    for (const line of await rendered('auth-relay.toml.5')) {
      const heading = /^ {3}(?:\[([a-z0-9-]+)\]|(Top of the file))$/.exec(line)
      if (heading !== null) section = heading[1] ?? ''
      const setting = /^ {7}([a-z_0-9]+) = /.exec(line)
      if (setting === null || section === undefined) continue
      const text = section === '' ? `${line}\n` : `[${section}]\n${line}\n`
      const read = parseSettings(text, 'auth-relay.toml').shown.find(({ origin }) => origin.kind === 'file')
      expect(read, text).toMatchObject({ section, name: setting[1] })
      expect(read?.written, text).toEqual(defaults.get(`${section}.${setting[1]}`))
      shown.push(`${section}.${setting[1]}`)
    }
    expect(shown).toEqual([...defaults.keys()])
  })

  test.each(pages)('%s: a value after a setting is TOML', async name => {
    const names = new Set(Object.values(SECTIONS).flatMap(({ rows }) => Object.keys(rows)))
    const text = (await rendered(name)).join(' ').replaceAll(/\s+/g, ' ')
    const written = [...text.matchAll(/(?<![\w.-])([a-z][a-z0-9_]+) = (\S*)/g)].filter(([, setting = '']) =>
      names.has(setting),
    )
    // Only the page of the settings needs examples.
    expect(written.length > 20 || name !== 'auth-relay.toml.5', `${written.length} values`).toBe(true)
    const isToml = /^(?:"[^"]*"?|\[.*|true\b|false\b|\d+\b)/
    expect(written.filter(([, , value = '']) => !isToml.test(value)).map(([all]) => all)).toEqual([])
  })

  test('examples keep the quotes that a shell needs', async () => {
    const text = (await rendered('auth-relay.8')).join('\n')
    expect(text).toMatch(/'[^']+'/)
    expect(text).not.toMatch(/[‘’]\w[^\n]*[‘’]/)
  })
})
