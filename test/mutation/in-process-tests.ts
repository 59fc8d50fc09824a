/**
 * The part of Vitest that the tests of the mutated rooms use, without workers. The tests of a file
 * become a list of functions, so that one process runs them again for each mutant. `expect` and
 * `vi` come from Vitest.
 */
import { fc } from '@fast-check/vitest'
import { expect, vi } from 'vitest'

export { expect, fc, vi }

type Body = (...values: unknown[]) => unknown

/** A test of a file that was imported. */
export interface CollectedTest {
  readonly title: string
  /** Rejects if the test fails, or if the test asserts nothing. */
  readonly run: () => Promise<void>
}

interface Suite {
  readonly title: string
  readonly before: Body[]
  readonly after: Body[]
}

let collected: CollectedTest[] = []
let suites: readonly Suite[] = []
let finishers: Body[] = []

/** Imports a file of tests, and returns the tests in their order. */
export async function collectTests(load: () => Promise<unknown>): Promise<readonly CollectedTest[]> {
  collected = []
  suites = [{ title: '', before: [], after: [] }]
  await load()
  return collected
}

async function runOne(around: readonly Suite[], body: Body, values: readonly unknown[]): Promise<void> {
  expect.setState({ assertionCalls: 0 })
  finishers = []
  for (const { before } of around) for (const hook of before) await hook()
  try {
    await body(...values)
    if (expect.getState().assertionCalls === 0) throw new Error('the test asserts nothing')
  } finally {
    for (const finish of finishers) await finish()
    for (const { after } of around) for (const hook of after) await hook()
  }
}

function add(title: string, body: Body, values: readonly unknown[] = []): void {
  const around = suites
  const whole = [...around.map(suite => suite.title), title].filter(part => part !== '').join(' > ')
  collected.push({ title: whole, run: () => runOne(around, body, values) })
}

/** Vitest gives the parts of an array as arguments, and each other value as one. */
const rowsOf = (table: readonly unknown[]): readonly (readonly unknown[])[] =>
  table.map(row => (Array.isArray(row) ? row : [row]))

const each =
  (to: (title: string, body: Body, values: readonly unknown[]) => void) =>
  (table: readonly unknown[]) =>
  (title: string, body: Body): void => {
    for (const [index, row] of rowsOf(table).entries()) to(`${title} [${index}]`, body, row)
  }

function suite(title: string, body: Body, values: readonly unknown[] = []): void {
  const around = suites
  suites = [...around, { title, before: [], after: [] }]
  body(...values)
  suites = around
}

const innermost = (): Suite => {
  const last = suites.at(-1)
  if (last === undefined) throw new TypeError('a hook stands outside of a file of tests')
  return last
}

/** A property of arbitraries; the tests use no record of them. */
const prop =
  (arbitraries: readonly fc.Arbitrary<unknown>[], params = {}) =>
  (title: string, body: Body): void => {
    const all = fc.tuple(...arbitraries)
    add(title, async () => {
      await fc.assert(
        fc.asyncProperty(all, async values => void (await body(...values))),
        params,
      )
    })
  }

const withEach = (title: string, body: Body): void => add(title, body)
export const test = Object.assign(withEach, { each: each(add), prop })
export const it = test
export const describe = Object.assign((title: string, body: Body): void => suite(title, body), { each: each(suite) })
// The hooks of a suite run around each test, because a mutant runs some of the tests alone.
export const beforeAll = (hook: Body): void => void innermost().before.push(hook)
export const beforeEach = beforeAll
export const afterAll = (hook: Body): void => void innermost().after.push(hook)
export const afterEach = afterAll
export const onTestFinished = (finish: Body): void => void finishers.push(finish)
