import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from '../harness/runner/require-assertions.ts'

/**
 * Failover with Patroni and etcd, as root: `npm run test:cluster`. CLUSTER_ROUNDS, CLUSTER_MINUTES,
 * CLUSTER_SEED and CLUSTER_FAULTS (names, separated by commas) choose the rounds. CLUSTER_LOGS is a
 * directory for the logs of a failed run.
 */
export default defineConfig({
  test: {
    ...REQUIRE_ASSERTIONS,
    include: ['test/cluster/*.cluster.ts'],
    globalSetup: ['test/harness/runner/build-once.ts'],
    fileParallelism: false,
    testTimeout: 6 * 3600_000,
    hookTimeout: 300_000,
    // The figures are the result, so they are shown at once.
    disableConsoleIntercept: true,
  },
})
