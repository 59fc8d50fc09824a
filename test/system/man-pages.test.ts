import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { command, describeWith } from '../harness/describe-with.ts'
import { run } from '../harness/program.ts'
import { commandOf, type ProgramName } from '../harness/stack.ts'

const directory = new URL('../../docs/man/', import.meta.url).pathname
const pages = readdirSync(directory)

/** A manual page as a reader has it: without roff's own words. */
const pageOf = (name: string): string =>
  readFileSync(`${directory}${name}`, 'utf8')
    .replaceAll(/\\f[BIR]|\\&/g, '')
    .replaceAll('\\-', '-')
    .replaceAll('\\e', '\\')

const PROGRAMS: readonly ProgramName[] = ['auth-relay', 'authd', 'pop3d', 'popup', 'sslwrap', 'wrap']

test('every program has its page, and every page its program', () => {
  expect(pages.toSorted()).toEqual([...PROGRAMS.map(name => `${name}.8`), 'auth-relay.toml.5'].toSorted())
})

test.each(PROGRAMS)('what %s --help says stands in its page: options, variables, signals, arguments', async name => {
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
  const sections = [...pageOf('auth-relay.8').matchAll(/^\.SS ([a-z-]+)/gm)].map(([, verb]) => verb)
  expect(sections).toEqual(verbs)
})

describeWith([command('groff', 'groff-base')], 'the pages as roff', () => {
  test.each(pages)('%s has no fault, and no line that a terminal of 100 columns breaks', async name => {
    const checked = await run(['groff', '-man', '-Tutf8', '-ww', '-z', `${directory}${name}`])
    expect(checked.lines).toEqual([])
    const shown = await run(['groff', '-man', '-Tutf8', '-P-cbou', '-rLL=78n', `${directory}${name}`])
    const examples = shown.lines.filter(line => line.length > 100)
    expect(examples).toEqual([])
  })
})
