import { existsSync, globSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

const root = `${import.meta.dirname}/../..`
const read = (path: string): string => readFileSync(`${root}/${path}`, 'utf8')

/**
 * A reference to docs/spec: `spec/popup.md §2`, also with further sections, or with `rule 5` of a
 * section.
 */
const REFERENCE = /spec\/([a-z0-9-]+)\.md(?:[\s*]*§§?([\d, ]*\d(?:[\s*]+and[\s*]+§\d+)?)(?:[\s*]+rule[\s*]+(\d+))?)?/g

type Reference = {
  readonly at: string
  readonly page: string
  readonly section: string
  readonly rule: string | undefined
}

function referencesOf(file: string): readonly Reference[] {
  return [...read(file).matchAll(REFERENCE)].flatMap(([, page = '', sections = '', rule]) => {
    const numbers = sections.match(/\d+/g) ?? ['']
    return numbers.map(section => ({ at: file, page, section, rule }))
  })
}

/**
 * The text of a section, from its heading to the next one; undefined if the page has no such
 * section.
 */
function sectionOf(page: string, section: string): string | undefined {
  const text = existsSync(`${root}/docs/spec/${page}.md`) ? read(`docs/spec/${page}.md`) : undefined
  if (text === undefined || section === '') return text
  return text.split(/^(?=## )/m).find(part => part.startsWith(`## ${section}. `))
}

const resolves = ({ page, section, rule }: Reference): boolean => {
  const text = sectionOf(page, section)
  return text !== undefined && (rule === undefined || new RegExp(`^${rule}\\. `, 'm').test(text))
}

describe('references of comments to docs/spec', () => {
  const files = globSync('{src,test,scripts}/**/*.ts', { cwd: root }).filter(
    file => !file.endsWith('unit/spec.test.ts'),
  )
  const references = files.flatMap(referencesOf)

  test('are found', () => {
    expect(references.length).toBeGreaterThan(60)
    expect(new Set(references.map(({ page }) => page)).size).toBeGreaterThan(5)
  })

  test('name existing sections', () => {
    expect(references.filter(reference => !resolves(reference))).toEqual([])
  })

  test('a reference to a missing section is found', () => {
    const found = ['spec/popup.md §99', 'spec/nothing.md §1', 'spec/syslog.md §5 rule 99', 'spec/nothing.md'].map(
      text => {
        const [[, page = '', section = '', rule] = []] = [...text.matchAll(REFERENCE)]
        return resolves({ at: '', page, section, rule })
      },
    )
    expect(found).toEqual([false, false, false, false])
  })

  test('every page has a table or list of its sections in order, and every link of a page has a target', () => {
    for (const file of globSync('docs/spec/*.md', { cwd: root })) {
      const text = read(file)
      const numbers = [...text.matchAll(/^## (\d+)\. /gm)].map(([, number]) => Number(number))
      expect(numbers, file).toEqual(numbers.map((_, index) => index + 1))
      for (const [, link = ''] of text.matchAll(/\]\(([^)#]+)\)/g))
        expect(existsSync(`${root}/docs/spec/${link}`), `${file}: ${link}`).toBe(true)
    }
  })
})

describe('clauses of the RFCs', () => {
  const rows = read('docs/spec/rfc.md')
    .split('\n')
    .flatMap(row => {
      const [, section, clause, file, name] = /^\| ([\d., ]+) \| ([^|]+) \| `([^`]+)`: `(.+)` \|$/.exec(row) ?? []
      return section === undefined || clause === undefined || file === undefined || name === undefined
        ? []
        : [{ row, file, name }]
    })

  test('each RFC has some, and every row of the tables is one', () => {
    const text = read('docs/spec/rfc.md')
    expect(text.match(/^## RFC \d+$/gm)).toEqual(['1939', '2449', '2595', '5034', '8314'].map(rfc => `## RFC ${rfc}`))
    const tableRows = text.split('\n').filter(line => /^\| \d/.test(line))
    expect(rows.map(({ row }) => row)).toEqual(tableRows)
    expect(rows.length).toBeGreaterThan(35)
  })

  test.each(rows)('$file has the test "$name"', ({ file, name }) => {
    const text = read(file)
    // A name in a source has its quotes escaped, or is a template of test.each.
    if (file.endsWith('.md')) expect(text).toContain(`\n## ${name}\n`)
    else expect([`'${name}'`, `"${name}"`, `\`${name}\``].some(quoted => text.includes(quoted))).toBe(true)
  })
})
