import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { readMigrations } from '../../src/database/migrate.ts'
import { changesOf } from '../debian/changelog.ts'
import { logEventsPage } from '../generate/log-events.ts'
import { generatedPages } from '../generate/man-pages.ts'
import { pop3authdSql } from '../generate/pop3authd-sql.ts'
import { settingsSchema } from '../generate/settings-schema.ts'

const Manifest = v.object({ version: v.string(), bin: v.record(v.string(), v.string()) })

/** Version and programs in package.json of a checkout. */
export const manifestOf = (root: string): v.InferOutput<typeof Manifest> =>
  v.parse(Manifest, JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')))

/** Obstacles to a release of this checkout, each with its remedy; empty if there are none. */
export async function checkRelease(root: string): Promise<readonly string[]> {
  return [...checkTree(root), ...checkVersion(root), ...checkDocuments(root), ...(await checkMadeFiles(root))]
}

const git = (root: string, ...words: readonly string[]): string =>
  execFileSync('git', words, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trimEnd()

function checkTree(root: string): string[] {
  const changed = git(root, 'status', '--porcelain').split('\n').filter(Boolean)
  return changed.length === 0
    ? []
    : [`the tree is dirty: commit or remove ${changed.map(line => line.slice(3)).join(', ')}`]
}

function checkVersion(root: string): string[] {
  const { version } = manifestOf(root)
  const found: string[] = []
  if (!/^\d+\.\d+\.\d+$/.test(version)) {
    found.push(`package.json: ${version} is not a version of a release: node scripts/release.ts prepare VERSION`)
  }
  if (git(root, 'tag', '--list', `v${version}`) !== '')
    found.push(`v${version} is already released: choose another version`)
  const changelog = readFileSync(join(root, 'CHANGELOG.md'), 'utf8')
  if (changesOf(changelog, version).length === 0)
    found.push(`CHANGELOG.md: has no changes of ${version}: write them below "## ${version}"`)
  const pending = changesOf(changelog, 'Pending').length
  if (pending > 0)
    found.push(`CHANGELOG.md: ${pending} changes are still pending: node scripts/release.ts prepare VERSION`)
  return found
}

function checkDocuments(root: string): string[] {
  const found: string[] = []
  for (const program of Object.keys(manifestOf(root).bin)) {
    const page = `docs/man/${program}.8`
    if (!existsSync(join(root, page))) found.push(`${page}: is missing: write the manual page of ${program}`)
  }
  for (const document of ['README.md', 'CONTRIBUTING.md', ...globSync('docs/**/*.md', { cwd: root })]) {
    if (!existsSync(join(root, document))) {
      found.push(`${document}: is missing`)
      continue
    }
    const text = readFileSync(join(root, document), 'utf8')
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s#]+)[^)]*\)/g)) {
      if (/^[a-z]+:/.test(target)) continue
      if (!existsSync(join(root, dirname(document), target))) found.push(`${document}: there is no ${target}`)
    }
  }
  return found
}

/** Files that scripts make from the code. */
async function checkMadeFiles(root: string): Promise<string[]> {
  const textOf = (path: string): string => (existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : '')
  const found: string[] = []
  for (const [name, text] of Object.entries(generatedPages())) {
    // checkDocuments reports a missing page of a program.
    const isReported = name.endsWith('.8') && textOf(`docs/man/${name}`) === ''
    if (!isReported && textOf(`docs/man/${name}`) !== text)
      found.push(`docs/man/${name}: does not match the code: node scripts/generate/man-pages.ts`)
  }
  if (textOf('docs/LOG-EVENTS.md') !== logEventsPage())
    found.push('docs/LOG-EVENTS.md: does not match the code: node scripts/generate/log-events.ts')
  if (textOf('deploy/auth-relay.schema.json') !== settingsSchema())
    found.push('deploy/auth-relay.schema.json: does not match the code: node scripts/generate/settings-schema.ts')
  if (textOf('sql/pop3authd.sql') !== pop3authdSql(await readMigrations(join(root, 'sql')))) {
    found.push('sql/pop3authd.sql: does not match the migrations: node scripts/generate/pop3authd-sql.ts')
  }
  return found
}
