import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from '../harness/runner/require-assertions.ts'

/** Tests of the packages, which they install on systems that they make: `npm run test:package`. */
export default defineConfig({
  test: {
    ...REQUIRE_ASSERTIONS,
    globalSetup: ['test/package/build-package.ts'],
    // One machine at a time, because each is a whole Debian with a database and a mail server.
    fileParallelism: false,
    include: ['test/package/**/*.test.ts'],
    testTimeout: 300_000,
    hookTimeout: 600_000,
  },
})
