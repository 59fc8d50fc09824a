import { readFileSync } from 'node:fs'
import { posix } from 'node:path'

const root = new URL('../../', import.meta.url).pathname

/** Documents of the Debian package, all in one directory there. */
const DOCUMENTS = [
  'README.md',
  'SECURITY.md',
  ...[
    'ARCHITECTURE',
    'CLUSTER',
    'ENDURANCE',
    'GLOSSARY',
    'INSTALL',
    'LOG-EVENTS',
    'MIGRATING',
    'OPERATING',
    'SCALE',
    'WIRE',
  ].map(name => `docs/${name}.md`),
]

/** A link or an image of a Markdown document. */
const LINK = /!?\[(?<text>[^\]]*)\]\((?<target>[^)\s]+)\)/g

/**
 * Name and text of each document. A link leads to a document in the same directory. A link to a
 * file that is not in the package becomes its text.
 */
export const debianDocuments = (): ReadonlyMap<string, string> =>
  new Map(
    DOCUMENTS.map(path => [posix.basename(path), relinked(path, readFileSync(`${root}${path}`, 'utf8'))] as const),
  )

function relinked(path: string, text: string): string {
  return text.replaceAll(LINK, (link, words: string, target: string) => {
    if (/^(https?:|mailto:|#)/.test(target)) return link
    const [file = '', ...section] = target.split('#')
    const linked = posix.join(posix.dirname(path), file)
    if (!DOCUMENTS.includes(linked)) return words
    return `[${words}](${[posix.basename(linked), ...section].join('#')})`
  })
}
