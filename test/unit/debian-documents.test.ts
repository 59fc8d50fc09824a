import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { debianDocuments } from '../../scripts/debian/documents.ts'

const documents = debianDocuments()

/** Pages about the checkout: their promises and decisions name its tests. */
const OF_THE_CHECKOUT = ['PROMISES.md']

test('the documents to which other documents refer are in the Debian package', () => {
  const texts = ['README.md', 'docs/INSTALL.md', 'docs/OPERATING.md', 'docs/MIGRATING.md'].map(name =>
    readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8'),
  )
  const targets = texts.flatMap(text => [...text.matchAll(/\]\((?:docs\/)?([A-Z-]+\.md)(?:#[^)]*)?\)/g)])
  const names = new Set(targets.map(([, name = '']) => name).filter(name => !/^CONTRIBUTING|^CHANGELOG/.test(name)))
  expect(names.size).toBeGreaterThan(8)
  expect([...names].filter(name => !documents.has(name)).sort()).toEqual(OF_THE_CHECKOUT)
})

test.each([...documents])('%s: every link leads to a document beside it', (_name, text) => {
  const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target)
  const files = targets.filter(each => !/^(https?:|mailto:|#)/.test(each)).map(target => target.split('#')[0] ?? '')
  expect(files.filter(file => !documents.has(file))).toEqual([])
})

test('a link to a file that is not in the package becomes its text', () => {
  expect(documents.get('README.md')).not.toContain('CONTRIBUTING.md)')
  expect(documents.get('README.md')).toContain('](INSTALL.md')
})
