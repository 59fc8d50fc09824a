import { globSync, statSync, utimesSync, writeFileSync } from 'node:fs'

/** Builds dist/ if a source is newer than the last build. `npm start` and `npm install` run it. */

const root = new URL('..', import.meta.url).pathname
const STAMP = `${root}dist/.built`

/** Sources of a build. */
const SOURCES = ['src/**/*.{ts,cnf}', 'scripts/build.ts', 'package-lock.json']

const modified = (path: string): number =>
  statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.NEGATIVE_INFINITY

const newest = Math.max(...globSync(SOURCES, { cwd: root }).map(path => modified(root + path)))
if (modified(STAMP) < newest) {
  const started = new Date()
  const { buildAll } = await import('./build.ts')
  await buildAll()
  writeFileSync(STAMP, '')
  // The time of the start, because the build may lack a change that was made while it ran.
  utimesSync(STAMP, started, started)
}
