import { defineConfig } from 'vitest/config'

/** Unit tests of the rooms that are mutated: each mutant is tested by those that reach it. */
export default defineConfig({
  test: {
    include: [
      'test/unit/pop3/**/*.test.ts',
      'test/unit/grants/**/*.test.ts',
      'test/unit/wire/customer-networks.test.ts',
      'test/unit/wrap/decision*.test.ts',
    ],
    testTimeout: 60_000,
  },
})
