import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { generatedPages, pageOnDisk } from '../../scripts/man-pages.ts'

const root = new URL('../..', import.meta.url).pathname

test.each(Object.keys(generatedPages()))('docs/man/%s agrees with the code (else: node scripts/man-pages.ts)', name => {
  expect(pageOnDisk(name)).toBe(generatedPages()[name])
})

describe.each(['authd', 'popup', 'pop3d', 'sslwrap', 'wrap'])('the manual page of %s', program => {
  const page = pageOnDisk(`${program}.8`).replaceAll('\\-', '-')

  test('exists and has the usual headings', () => {
    for (const heading of [
      'NAME',
      'SYNOPSIS',
      'DESCRIPTION',
      'OPTIONS',
      'SIGNALS',
      'EXIT STATUS',
      'FILES',
      'SEE ALSO',
    ]) {
      expect(page).toContain(`.SH ${heading}\n`)
    }
  })

  test('names every option of --help, and no other', () => {
    const source = ['main.ts', 'command-line.ts', 'usage.ts', 'run-wrap.ts']
      .map(file => `${root}src/${program}/${file}`)
      .filter(file => existsSync(file))
      .map(file => readFileSync(file, 'utf8'))
      .join('\n')
    const usage = [...source.matchAll(/`((?:[Uu]sage): [^`]*)`/g)].map(([, text = '']) => text).join('\n')
    expect(usage).not.toBe('')
    const optionsIn = (text: string): readonly string[] =>
      [...new Set([...text.matchAll(/(?<=[\s[,|]|\\fB|^)--?[A-Za-z][A-Za-z-]*/gm)].map(([option]) => option))].sort()
    const spoken = optionsIn(page.slice(page.indexOf('.SH SYNOPSIS')))
    for (const option of optionsIn(usage)) expect(spoken).toContain(option)
    const known = optionsIn(`${usage}\n--help --version`)
    const [options = ''] = page.slice(page.indexOf('.SH OPTIONS')).split('.SH ENV')
    for (const option of optionsIn(options.split('.SH SIGNALS')[0] ?? '')) expect(known).toContain(option)
  })
})
