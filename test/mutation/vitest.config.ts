import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from '../harness/require-assertions.ts'

/**
 * Unit tests of the rooms that are mutated. Each mutant runs with the tests that reach it.
 * MUTATION_TESTS names other tests, separated by commas, for a run over a few files.
 */
const chosen = process.env['MUTATION_TESTS']

export default defineConfig({
  test: {
    ...REQUIRE_ASSERTIONS,
    include: chosen?.split(',') ?? [
      'test/unit/pop3/**/*.test.ts',
      'test/unit/grants/**/*.test.ts',
      'test/unit/wire/**/*.test.ts',
      'test/unit/syslog/**/*.test.ts',
      'test/unit/wrap/decision*.test.ts',
    ],
    exclude: [
      // Runs tens of thousands of attacks on every dialect, which takes longer than all other
      // tests.
      'test/unit/syslog/forgery.property.test.ts',
      // Changes the time zone, which a thread of the mutation run cannot do.
      'test/unit/syslog/stamp-time.test.ts',
    ],
    testTimeout: 60_000,
  },
})
