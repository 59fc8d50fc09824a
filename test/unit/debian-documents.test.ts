import { expect, test } from 'vitest'
import { debianDocuments } from '../../scripts/debian/documents.ts'

const documents = debianDocuments()

test('the documents to which other documents refer are in the Debian package', () => {
  expect([...documents.keys()]).toEqual(expect.arrayContaining(['README.md', 'INSTALL.md', 'MIGRATING.md', 'SCALE.md']))
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
