import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from '../harness/runner/require-assertions.ts'

/**
 * The endurance tests. Parts by name, for example `npm run test:soak -- fuzz kills`. They run one
 * after the other, because each needs the whole machine. SOAK_ENGINE=node or epoll sets the engine
 * of connections for the programs under test.
 */
const engine = process.env['SOAK_ENGINE']

export default defineConfig({
  test: {
    ...REQUIRE_ASSERTIONS,
    ...(engine === undefined || engine === '' ? {} : { env: { TEST_ENGINE: engine } }),
    include: ['test/soak/*.soak.ts'],
    globalSetup: ['test/harness/runner/build-once.ts', 'test/harness/postgres/postgres-for-tests.ts'],
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 180_000,
    // The figures are the result, so they are shown at once.
    disableConsoleIntercept: true,
  },
})
