import { defineConfig } from 'vitest/config'

/**
 * The endurance tests: parts by name, e.g. `npm run test:soak -- fuzz kills`. One after the other:
 * each wants the machine.
 */
export default defineConfig({
  test: {
    include: ['test/soak/*.soak.ts'],
    globalSetup: ['test/harness/build-once.ts', 'test/harness/postgres-for-tests.ts'],
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 180_000,
    // The figures are the result: shown as they come.
    disableConsoleIntercept: true,
  },
})
