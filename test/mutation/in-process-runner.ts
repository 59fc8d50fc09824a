/**
 * Runs the unit tests for Stryker in one process. Vitest begins a worker for each mutant, which
 * costs a second; here the modules stay loaded, and a mutant costs the time of its tests.
 */
import { globSync, readFileSync } from 'node:fs'
import { registerHooks, stripTypeScriptTypes } from 'node:module'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { type CollectedTest, collectTests } from './in-process-tests.ts'
import { MUTATION_INPUTS, MUTATION_TESTS, TESTS_LEFT_OUT, TITLES_LEFT_OUT } from './tests.ts'

/** The variables that the instrumented modules and this runner share, with Stryker's names. */
interface Instrumentation {
  activeMutant?: string | undefined
  currentTestId?: string | undefined
  hitCount?: number | undefined
  hitLimit?: number | undefined
  mutantCoverage?: unknown
}

declare global {
  var __stryker__: Instrumentation | undefined
}

globalThis.__stryker__ ??= {}
const instrumentation: Instrumentation = globalThis.__stryker__

type Outcome = { readonly id: string; readonly name: string; readonly timeSpentMs: number } & (
  | { readonly status: 0 }
  | { readonly status: 1; readonly failureMessage: string }
)

const SHIM = new URL('./in-process-tests.ts', import.meta.url).href
const REPLACED: ReadonlySet<string> = new Set(['vitest', '@fast-check/vitest'])

class InProcessRunner {
  readonly #tests = new Map<string, CollectedTest>()
  /** Of each test of the dry run, in milliseconds. */
  readonly #durations = new Map<string, number>()

  capabilities(): { readonly reloadEnvironment: boolean } {
    return { reloadEnvironment: false }
  }

  async init(): Promise<void> {
    // A mutant can leave a promise behind that nothing awaits.
    process.on('unhandledRejection', () => undefined)
    registerHooks({
      resolve: (specifier, context, next) =>
        REPLACED.has(specifier) && context.parentURL !== SHIM
          ? { url: SHIM, format: 'module', shortCircuit: true }
          : next(specifier, context),
      // Node.js itself strips no types below node_modules, where the mutated copy is.
      load: (url, context, next) =>
        url.endsWith('.ts') && url !== SHIM
          ? { format: 'module', source: stripTypeScriptTypes(readFileSync(new URL(url), 'utf8')), shortCircuit: true }
          : next(url, context),
    })
    // The same inputs for each mutant, and no search for the smallest one that fails.
    fc.configureGlobal({ seed: 1, endOnFailure: true, numRuns: MUTATION_INPUTS })
  }

  /** Imports the tests, and with them the modules, unless that was done. */
  async #load(): Promise<void> {
    if (this.#tests.size > 0) return
    await import(pathToFileURL(resolve('test/harness/runner/count-assertions.ts')).href)
    for (const file of globSync(MUTATION_TESTS, { exclude: TESTS_LEFT_OUT }).sort()) {
      const tests = await collectTests(() => import(pathToFileURL(resolve(file)).href))
      for (const [index, test] of tests.entries()) {
        if (!TITLES_LEFT_OUT.test(test.title)) this.#tests.set(`${file}#${index} ${test.title}`, test)
      }
    }
  }

  async dryRun(): Promise<object> {
    instrumentation.activeMutant = undefined
    await this.#load()
    const tests: Outcome[] = []
    for (const id of this.#tests.keys()) {
      instrumentation.currentTestId = id
      const outcome = await this.#run(id)
      instrumentation.currentTestId = undefined
      this.#durations.set(id, outcome.timeSpentMs)
      tests.push(outcome)
    }
    return { status: 'complete', tests, mutantCoverage: instrumentation.mutantCoverage }
  }

  async mutantRun(options: {
    readonly activeMutant: { readonly id: string }
    readonly testFilter?: readonly string[]
    readonly hitLimit?: number
    readonly mutantActivation?: 'static' | 'runtime'
  }): Promise<object> {
    const { activeMutant, hitLimit, mutantActivation } = options
    // A mutant of a table must be active before the module is loaded.
    if (mutantActivation === 'static') instrumentation.activeMutant = activeMutant.id
    try {
      await this.#load()
    } catch (error) {
      return { status: 'error', errorMessage: `the modules cannot be loaded: ${String(error)}` }
    }
    const { testFilter = [...this.#tests.keys()] } = options
    // Most mutants fail a quick example, so that the slow properties need not run.
    const quickestFirst = testFilter.toSorted((a, b) => this.#durationOf(a) - this.#durationOf(b))
    Object.assign(instrumentation, { activeMutant: activeMutant.id, hitCount: 0, hitLimit })
    try {
      for (const [index, id] of quickestFirst.entries()) {
        const outcome = await this.#run(id)
        const isEndless = hitLimit !== undefined && (instrumentation.hitCount ?? 0) > hitLimit
        if (isEndless) return { status: 'timeout', reason: `more than ${hitLimit} hits` }
        if (outcome.status === 1)
          return { status: 'killed', killedBy: [id], failureMessage: outcome.failureMessage, nrOfTests: index + 1 }
      }
      return { status: 'survived', nrOfTests: testFilter.length }
    } finally {
      instrumentation.activeMutant = undefined
    }
  }

  #durationOf(id: string): number {
    return this.#durations.get(id) ?? 0
  }

  async #run(id: string): Promise<Outcome> {
    // A missing test is an error of the run. It must not count as a test that fails.
    const test = this.#tests.get(id)
    if (test === undefined) throw new TypeError(`no such test: ${id}`)
    const begin = performance.now()
    const about = () => ({ id, name: id, timeSpentMs: performance.now() - begin })
    try {
      await test.run()
      return { ...about(), status: 0 }
    } catch (error) {
      return { ...about(), status: 1, failureMessage: String(error) }
    }
  }
}

const makeRunner = (): InProcessRunner => new InProcessRunner()
makeRunner.inject = [] as const

export const strykerPlugins = [{ kind: 'TestRunner', name: 'in-process', factory: makeRunner }]
