import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { commandTree } from '../../src/auth-relay/command-line.ts'
import { LOG_EVENTS } from '../../src/base/log-events.ts'
import { parseSettings, SECTIONS } from '../../src/settings/settings.ts'

const root = new URL('../..', import.meta.url).pathname
const DOCUMENTS = [
  'README.md',
  ...readdirSync(`${root}docs`)
    .filter(name => name.endsWith('.md'))
    .map(name => `docs/${name}`),
]
const textOf = (name: string): string => readFileSync(`${root}${name}`, 'utf8')

/** Code blocks of a language (`''`: any), and what stands between backticks. */
const blocks = (text: string, language = '\\w*'): string[] =>
  [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, block = '']) => block)
const spans = (text: string): string[] =>
  [...text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/`([^`\n]+)`/g)].map(([, span = '']) => span)

/** The anchor that a heading gets. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\w\s-]/g, '')
    .trim()
    .replaceAll(' ', '-')
const anchors = (text: string): string[] =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchorOf(heading.replaceAll('`', '')))

const program = commandTree({ environment: {}, print: () => {}, isTerminal: false, columns: 80 }, () => {})

describe.each(DOCUMENTS)('%s', name => {
  const text = textOf(name)

  test('its settings are understood', () => {
    for (const block of blocks(text, 'toml')) expect(() => parseSettings(block, block)).not.toThrow()
  })

  test('its commands exist, with their options', () => {
    const lines = [...blocks(text, 'sh').flatMap(block => block.split('\n')), ...spans(text)]
    const commands = lines.flatMap(line =>
      [...line.replace(/(^|\s)#.*$/, '').matchAll(/(?:^|[|;&(]\s*)auth-relay ((?:(?!&&|\||;|>).)+)/g)].map(
        ([, words = '']) => words.trim().split(/\s+/),
      ),
    )
    for (const [verb = '', ...words] of commands) {
      if (verb.startsWith('-')) continue
      const command = program.commands.find(each => each.name() === verb)
      expect(command?.name(), `auth-relay ${verb} ${words.join(' ')}`).toBe(verb)
      const known = [...(command?.options ?? []).flatMap(({ long }) => (long === undefined ? [] : [long])), '--help']
      for (const word of words.filter(each => /^\[?--[a-z]/.test(each))) {
        expect(known, `auth-relay ${verb}`).toContain(word.replaceAll(/[[\]]/g, ''))
      }
    }
  })

  test('the settings that it names by section exist', () => {
    const sections = Object.values(SECTIONS)
    for (const span of spans(text)) {
      const [, section = '', setting = ''] = /^([a-z-]+)\.([a-z_]+)(?: = .*)?$/.exec(span) ?? []
      const found = sections.find(each => each.name === section && section !== '')
      if (found !== undefined) expect(Object.keys(found.rows), span).toContain(setting)
    }
  })

  test('what it links to is there', () => {
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      // The page of figures is written by npm run bench.
      if (/^https?:/.test(target) || target.endsWith('bench/RESULTS.md')) continue
      const [file = '', anchor] = target.split('#')
      const path = file === '' ? name : join(dirname(name), file)
      expect(existsSync(`${root}${path}`), `${name}: ${target}`).toBe(true)
      if (anchor !== undefined) expect(anchors(textOf(path)), target).toContain(anchor)
    }
  })

  test('the files of this package that it names are there', () => {
    for (const span of spans(text)) {
      if (/^(deploy|docs|sql|src|bench|scripts|test)\/[\w./-]+$/.test(span))
        expect(existsSync(`${root}${span}`), span).toBe(true)
    }
  })

  test('the numbers that it tells Prometheus to watch are counted', () => {
    const metrics = textOf('src/authd/metrics.ts')
    for (const span of spans(text)) {
      const [metric] = /^authd_[a-z_]+$/.exec(span) ?? []
      if (metric !== undefined && !Object.hasOwn(LOG_EVENTS, metric)) expect(metrics).toContain(`'${metric}'`)
    }
  })
})

test('each decision has a number of its own, which stands in its title', () => {
  const names = readdirSync(`${root}docs/decisions`).filter(name => name !== 'README.md')
  expect(names.length).toBeGreaterThan(0)
  for (const [index, name] of names.sort().entries()) {
    expect(name).toMatch(new RegExp(`^${String(index + 1).padStart(4, '0')}-`))
    expect(textOf(`docs/decisions/${name}`)).toMatch(new RegExp(`^# ${index + 1}\\. `))
  }
})
