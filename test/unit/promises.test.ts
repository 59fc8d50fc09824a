import { readFileSync } from 'node:fs'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'

const root = new URL('../..', import.meta.url).pathname
const textOf = (path: string): string => readFileSync(`${root}${path}`, 'utf8')

const rows = [...textOf('docs/PROMISES.md').matchAll(/^\| (\d+) \| (.*) \| (.*) \| (.*) \|$/gm)].map(
  ([, number = '', promise = '', tests = '', run = '']) => ({ number: Number(number), promise, tests, run }),
)

/** Titles of test calls: `test`, `it` and `describe`, also with `each` and similar members. */
function titlesIn(path: string): readonly string[] {
  const titles: string[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && /^(?:test|it|describe)/.test(node.expression.getText())) {
      for (const each of node.arguments) {
        if (ts.isStringLiteralLike(each)) titles.push(each.text)
        else if (ts.isTemplateExpression(each)) titles.push(each.getText().slice(1, -1))
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(path, textOf(path), ts.ScriptTarget.Latest, true))
  return titles
}

test('promises have consecutive numbers, and the README links to them', () => {
  expect(rows.length).toBeGreaterThan(30)
  expect(rows.map(({ number }) => number)).toEqual(rows.map((_, index) => index + 1))
  expect(textOf('README.md')).toContain('(docs/PROMISES.md)')
})

/** The rows of the table of figures, without marks. */
const figures =
  textOf('docs/ENDURANCE.md')
    .split('## Figures')[1]
    ?.match(/^\| `.*$/gm) ?? []

describe.each(rows)('promise $number', ({ tests, run }) => {
  test('its tests exist', () => {
    const named = [...tests.matchAll(/`(test\/[^`]+\.test\.ts)` `([^`]+)`/g)]
    expect(named.length).toBeGreaterThan(0)
    expect(named.map(([all]) => all).join('; ')).toBe(tests)
    for (const [, path = '', name = ''] of named) {
      const titles = titlesIn(path)
      expect(
        titles.some(title => title.includes(name)),
        `${path}: ${name}`,
      ).toBe(true)
    }
  })

  test('its last long run has a date, or it has no long run', () => {
    if (run !== '–') expect(run).toMatch(/^20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]), \S/)
    expect(run).not.toBe('')
  })
})

describe.each(rows.filter(({ run }) => run !== '–'))('the long run of promise $number', ({ run }) => {
  test('stands in ENDURANCE, with the same date and size', () => {
    const [, date = '', part = '', size = ''] = /^(\S+), `([^`]+)`, ([^,]*(?:,\d{3}[^,]*)*)/.exec(run) ?? []
    const named = figures.filter(row => row.split('|')[1]?.includes(`\`${part}\``) && row.includes(date))
    expect(
      named.filter(row => row.includes(size)),
      `${date} ${part} ${size}`,
    ).not.toEqual([])
    const dates = figures
      .map(row => row.split('|')[1] ?? '')
      .flatMap(name => (name.includes(`\`${part}\``) ? (name.match(/\d{4}-\d\d-\d\d/g) ?? []) : []))
    expect(dates.sort().at(-1)).toBe(date)
  })
})
