import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from '../harness/require-assertions.ts'

/**
 * The endurance tests: parts by name, e.g. `npm run test:soak -- fuzz kills`. One after the other:
 * each wants the machine. SOAK_ENGINE=node or epoll: what carries the connections of the programs
 * under test, in place of what they choose.
 */
const engine = process.env['SOAK_ENGINE']

export default defineConfig({
  test: {
    ...REQUIRE_ASSERTIONS,
    ...(engine === undefined || engine === '' ? {} : { env: { TEST_ENGINE: engine } }),
    include: ['test/soak/*.soak.ts'],
    globalSetup: ['test/harness/build-once.ts', 'test/harness/postgres-for-tests.ts'],
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 180_000,
    // The figures are the result: shown as they come.
    disableConsoleIntercept: true,
  },
})
