import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { generatedPages, pageOnDisk } from '../../scripts/generate/man-pages.ts'

const root = new URL('../..', import.meta.url).pathname

test.each(Object.keys(generatedPages()))(
  'docs/man/%s agrees with the code (else: node scripts/generate/man-pages.ts)',
  name => {
    expect(pageOnDisk(name)).toBe(generatedPages()[name])
  },
)

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
    const { stdout: usage } = spawnSync(process.execPath, [`${root}src/${program}/main.ts`, '--help'], {
      encoding: 'utf8',
    })
    expect(usage).toMatch(/^Usage: /)
    expect(usage).toContain('\n  -h, --help        print this help\n  -V, --version     print the version\n')
    expect(usage).toContain(`${program} --help | --version\n`)
    const optionsIn = (text: string): readonly string[] =>
      [...new Set([...text.matchAll(/(?<=[\s[,|]|\\fB|^)--?[A-Za-z][A-Za-z-]*/gm)].map(([option]) => option))].sort()
    const spoken = optionsIn(page.slice(page.indexOf('.SH SYNOPSIS')))
    for (const option of optionsIn(usage)) expect(spoken).toContain(option)
    const known = optionsIn(usage)
    const [options = ''] = page.slice(page.indexOf('.SH OPTIONS')).split('.SH ENV')
    for (const option of optionsIn(options.split('.SH SIGNALS')[0] ?? '')) expect(known).toContain(option)
  })

  test('its synopsis ends with help and version', () => {
    const [synopsis = ''] = page.slice(page.indexOf('.SH SYNOPSIS')).split('.SH DESCRIPTION')
    expect(synopsis).toMatch(new RegExp(`\\.B ${program} --help\\n\\|\\n\\.B --version\\n$`))
  })

  test('explains the exit statuses of this program', () => {
    const [statuses = ''] = page.slice(page.indexOf('.SH EXIT STATUS')).split('.SH FILES')
    expect(statuses).toMatch(/\.B 0\n[\s\S]*\.B 100\n[\s\S]*\.B 111\n/)
    // Only these two connect to the database.
    if (program !== 'authd' && program !== 'wrap') expect(statuses).not.toContain('database')
  })
})
