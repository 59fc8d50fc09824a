import { globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const root = new URL('../..', import.meta.url).pathname
const sources = globSync('src/**/*.ts', { cwd: root })
  .sort()
  .map(path => ({ path, text: readFileSync(`${root}${path}`, 'utf8') }))

/** Constants of a number, with the comment above each. */
const constants = sources.flatMap(({ path, text }) =>
  [
    ...text.matchAll(
      /(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n)?^(?:export )?const ([A-Z][A-Z_]*) = [\d_.]+(?: \* [\d_]+)*$/gm,
    ),
  ].map(([, comment = '', name = '']) => ({ path, name, comment: comment.replaceAll(/\s*\* ?|\s+/g, ' ').trim() })),
)

test('a constant that is a time says its unit in its name', () => {
  expect(constants.length).toBeGreaterThan(150)
  const beginsWithUnit = constants.filter(({ comment }) => /^(?:Milliseconds|Seconds) /.test(comment))
  expect(beginsWithUnit.length).toBeGreaterThan(10)
  expect(beginsWithUnit.filter(({ name }) => !/(?:^|_)(?:MS|S|SECONDS|FACTOR)$/.test(name))).toEqual([])
})

test('a constant that a timer takes is in milliseconds, and its name says it', () => {
  const timers = sources.flatMap(({ path, text }) =>
    [
      ...text.matchAll(
        /\b(?:setTimeout|setInterval|pause|timeout)\((?:[^()]|\([^()]*\))*?\b([A-Z][A-Z_]+)(?:, [^()]*)?\)/g,
      ),
    ].map(([, name = '']) => ({ path, name })),
  )
  expect(timers.length).toBeGreaterThan(15)
  expect(timers.filter(({ name }) => !name.endsWith('_MS'))).toEqual([])
})
