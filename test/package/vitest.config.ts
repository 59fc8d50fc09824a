import { defineConfig } from 'vitest/config'

/** Tests of what is shipped. They install it, on systems that they make: `npm run test:package`. */
export default defineConfig({
  test: {
    include: ['test/package/**/*.test.ts'],
    testTimeout: 180_000,
    hookTimeout: 600_000,
  },
})
