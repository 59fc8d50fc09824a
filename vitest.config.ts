import { globSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from './test/harness/runner/require-assertions.ts'

/**
 * Tests whose subject is a connection. They run a second time with the engine that the host does
 * not choose.
 */
const OVER_BOTH_ENGINES = [
  'test/system/engines.test.ts',
  'test/system/popup/login.test.ts',
  'test/system/popup/tls.test.ts',
  'test/system/popup/checkers.test.ts',
  'test/system/sslwrap/proxies.test.ts',
  'test/system/sslwrap/with-popup.test.ts',
  'test/system/wrap/gate.test.ts',
  'test/system/wrap/starter.test.ts',
  'test/clients/pop3-clients.test.ts',
  'test/clients/tls-fronts.test.ts',
]

/**
 * Unit tests that replace a module or change or measure their process. Each of these files has its
 * own process. All other files share a few processes, because a new process with its own modules
 * takes longer than most files.
 */
const WITH_OWN_PROCESS = globSync('test/unit/**/*.test.ts', { cwd: import.meta.dirname }).filter(path =>
  /\bvi\.(?:mock|hoisted|stub)|memoryUsage|\/proc\/self|process\.(?:umask|on\b|once|env\[[^\]]*\] =)/.test(
    readFileSync(`${import.meta.dirname}/${path}`, 'utf8'),
  ),
)

const UNIT = { ...REQUIRE_ASSERTIONS, testTimeout: 60_000 }

const SYSTEM = {
  ...REQUIRE_ASSERTIONS,
  isolate: false,
  globalSetup: ['test/harness/runner/build-once.ts', 'test/harness/postgres/postgres-for-tests.ts'],
  testTimeout: 120_000,
  hookTimeout: 180_000,
}

export default defineConfig({
  test: {
    // Tests wait for processes more than they compute, so that more tests than cores run at once.
    maxWorkers: Math.max(4, availableParallelism()),
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          exclude: WITH_OWN_PROCESS,
          isolate: false,
          ...UNIT,
        },
      },
      { test: { name: 'unit-own-process', include: WITH_OWN_PROCESS, ...UNIT } },
      {
        test: {
          ...REQUIRE_ASSERTIONS,
          name: 'database',
          isolate: false,
          include: ['test/database/**/*.test.ts'],
          globalSetup: ['test/harness/postgres/postgres-for-tests.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts', 'test/clients/**/*.test.ts'],
          ...SYSTEM,
        },
      },
      {
        test: { name: 'engine-node', include: OVER_BOTH_ENGINES, env: { TEST_ENGINE: 'node' }, ...SYSTEM },
      },
    ],
  },
})
