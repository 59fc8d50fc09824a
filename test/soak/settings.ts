/** A whole number of the environment, e.g. `SOAK_SECONDS=600 npm run test:soak -- traffic`. */
function numberOf(name: string, otherwise: number): number {
  const text = process.env[name]
  if (text === undefined || text === '') return otherwise
  if (!/^\d{1,10}$/.test(text)) throw new Error(`${name} must be a whole number, not ${text}`)
  return Number(text)
}

/**
 * Size of a soak run. Smaller sizes are for work on the tests; the documented figures come from the
 * defaults.
 */
export const SOAK = {
  /** Every random choice of a run comes from this seed, so the same seed is the same run. */
  seed: numberOf('SOAK_SEED', Math.floor(Math.random() * 1_000_000_000)),
  /** Inputs for each target of the fuzzing. */
  inputs: numberOf('SOAK_INPUTS', 1_000_000),
  /** The number of one input, to run a failure again. */
  only: numberOf('SOAK_ONLY', -1),
  /** kill -9 of processes under load, in all. */
  kills: numberOf('SOAK_KILLS', 100),
  /** Length of the mixed traffic. */
  seconds: numberOf('SOAK_SECONDS', 180),
  idlePop3: numberOf('SOAK_IDLE_POP3', 5000),
  idleTls: numberOf('SOAK_IDLE_TLS', 2000),
  /** Number of POP3 commands whose answers are compared with a model, over all forms of pop3d. */
  pop3Commands: numberOf('SOAK_POP3_COMMANDS', 1_000_000),
  /** Number of random histories after which every service is queried, for each of two policies. */
  serviceHistories: numberOf('SOAK_SERVICE_HISTORIES', 100),
} as const
