import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { debianSettings } from '../../../scripts/debian/settings-template.ts'
import { SCHEMA_PATH, schemaOnDisk, settingsSchema } from '../../../scripts/generate/settings-schema.ts'
import { RECIPES, schemaFile } from '../../../src/auth-relay/text/settings-text.ts'
import { settingsFor, settingsTemplate } from '../../../src/auth-relay/verbs/init.ts'
import { parseSettings, SECTIONS } from '../../../src/settings/settings.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = new URL('../../..', import.meta.url).pathname
const { path, remove } = temporaryDirectory()
afterAll(remove)

const DOCUMENTS = [
  'README.md',
  ...readdirSync(`${root}docs`).flatMap(name => (/\.md$/.test(name) ? `docs/${name}` : [])),
]
const tomlBlocks = (text: string): readonly string[] =>
  [...text.matchAll(/^```toml\n([\s\S]*?)^```/gm)].map(([, block = '']) => block)

/**
 * Settings that the documents and examples show, and those that the programs write, by file name.
 */
function rightFiles(): ReadonlyMap<string, string> {
  const secret = '/etc/sslhack.pass'
  const written = (['embedded', { dbhost: 'db1,db2' }] as const).flatMap((database, index) => [
    [`init-${index}.toml`, settingsTemplate('/etc/a.toml', settingsFor({ secret, database }))] as const,
    ...Object.entries(RECIPES).map(([name, recipe]) => {
      const text = settingsTemplate('/etc/a.toml', settingsFor({ secret, database, recipe }), recipe)
      return [`init-${name}-${index}.toml`, text] as const
    }),
  ])
  const shown = DOCUMENTS.flatMap(name =>
    tomlBlocks(readFileSync(`${root}${name}`, 'utf8')).map(
      (block, index) => [`${name.replaceAll('/', '-')}-${index}.toml`, block] as const,
    ),
  )
  return new Map([
    ...written,
    ...shown,
    ['debian.toml', debianSettings()],
    ['container.toml', readFileSync(`${root}deploy/container/auth-relay.toml`, 'utf8')],
  ])
}

/**
 * The findings of taplo about files, whose first lines name the schema. One run reads all files,
 * because taplo compiles its WebAssembly at each start for ten seconds and more.
 */
function lint(files: ReadonlyMap<string, string>): string {
  const paths = [...files].map(([name, text]) => {
    const body = text.replace(/^#:schema .*\n/, '')
    writeFileSync(`${path}/${name}`, `#:schema ${SCHEMA_PATH}\n${body}`)
    return `${path}/${name}`
  })
  const words = ['lint', '--colors', 'never', '--no-auto-config', ...paths]
  const { stderr, error } = spawnSync(`${root}node_modules/.bin/taplo`, words, { encoding: 'utf8', cwd: path })
  if (error !== undefined) throw error
  return stderr
}

test('the schema agrees with the table of settings (else: node scripts/generate/settings-schema.ts)', () => {
  expect(schemaOnDisk()).toBe(settingsSchema())
})

const WRONG = {
  'an unknown setting': '[grants]\nexp_tme = 1\n',
  'an unknown section': '[grant]\n',
  'a duration without a known unit': '[grants]\nexp_time = "30x"\n',
  'a number beyond its bounds': '[database]\ndbport = 65536\n',
  'a word that is no choice': '[popup]\nchecker = "shadow"\n',
  'a text in place of true': 'configured = "yes"\n',
  'an address without a port': '[popup]\nlisten = ["192.0.2.1"]\n',
  'a name in place of a network': '[grants]\nnever_grant = ["proxy.example.org"]\n',
  'a relative path': '[popup]\npasswd_file = "passwd"\n',
  'the password that everybody tries': '[database]\ndbpass = "password"\n',
  'a listener without a server behind it': '[[sslwrap.listener]]\nlisten = "*:995"\n',
}

test('taplo accepts the settings of documents, examples, the package and init, and finds each kind of mistake', () => {
  const right = rightFiles()
  expect(right.size).toBeGreaterThan(30)
  const wrong = new Map(Object.values(WRONG).map((text, index) => [`wrong-${index}.toml`, text]))
  const findings = lint(new Map([...right, ...wrong]))
  expect(findings).toContain(`total=${right.size + wrong.size}`)
  const refused = [...right.keys(), ...wrong.keys()].filter(name => findings.includes(`path="${path}/${name}"`))
  expect(refused, findings).toEqual([...wrong.keys()])
}, 240_000)

test.each(Object.entries(WRONG))('the programs refuse %s too', (_, text) => {
  expect(() => parseSettings(text, 'x.toml')).toThrow('x.toml:')
})

describe('the first line of a file that init writes', () => {
  test('names the schema of the installation', () => {
    const schema = schemaFile(`${root}dist/auth-relay.js`)
    expect(schema).toBe(SCHEMA_PATH)
    expect(schemaFile(`${root}src/auth-relay/main.ts`)).toBe(SCHEMA_PATH)
    expect(schemaFile('/nonexistent/dist/auth-relay.js')).toBeUndefined()
  })

  test("names the schema's path in the file of the package", () => {
    expect(debianSettings().split('\n', 1)).toEqual(['#:schema /usr/share/auth-relay/auth-relay.schema.json'])
  })
})

test('the schema has each setting with its meaning and default, and former names', () => {
  const schema: unknown = JSON.parse(settingsSchema())
  for (const { name, rows } of Object.values(SECTIONS)) {
    for (const [setting, { doc, default: fallback, formerNames }] of Object.entries(rows)) {
      const property = { description: doc, default: fallback }
      const table = { properties: { [setting]: property } }
      expect(schema).toMatchObject(name === '' ? table : { properties: { [name]: table } })
      for (const former of formerNames) {
        expect(schema).toMatchObject({ properties: { [name]: { properties: { [former]: { default: fallback } } } } })
      }
    }
  }
})
