/**
 * Unit tests of the rooms that are mutated. Each mutant runs with the tests that reach it.
 * MUTATION_TESTS names other tests, separated by commas, for a run over a few files.
 */
const chosen = process.env['MUTATION_TESTS']

export const MUTATION_TESTS: string[] = chosen?.split(',') ?? [
  'test/unit/pop3/**/*.test.ts',
  'test/unit/grants/**/*.test.ts',
  'test/unit/wrap/mail-rules.test.ts',
  'test/unit/wire/**/*.test.ts',
  'test/unit/syslog/**/*.test.ts',
]

/**
 * Runs tens of thousands of attacks on every dialect, which takes longer than all other tests.
 */
export const TESTS_LEFT_OUT: string[] = ['test/unit/syslog/forgery.property.test.ts']

/**
 * Titles of tests that are left out for the same reason: thousands of attacks, and the time of a
 * huge input.
 */
export const TITLES_LEFT_OUT = /no text of an attacker opens the relay|grows only with its length/

/** Inputs of a property. Fewer inputs make a run shorter, and cannot kill more mutants. */
export const MUTATION_INPUTS = Number(process.env['MUTATION_INPUTS'] ?? 100)
