import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { actions, MaildropTrial } from '../harness/pop3/maildrop-trial.ts'
import { openByWorker, openStandalone, openWithin } from '../harness/pop3/open-sessions.ts'
import { WorkersForTests } from '../harness/pop3/pop3d.ts'
import { checkRuns } from '../harness/runner/check-runs.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { SOAK } from './settings.ts'

const root = temporaryDirectory()
const workers = new WorkersForTests(root.path)
afterAll(async () => {
  await workers.stop()
  root.remove()
})

/** Commands between two lines of progress. */
const STEP_COMMANDS = 10_000
/** Runs between two checks of the count. */
const RUNS = 50

test.each([
  ['one process', 'none', openWithin('none'), 0.4],
  ['one process', 'qmail', openWithin('qmail'), 0.25],
  ['a worker', 'none', (maildir: string) => openByWorker(workers, maildir, 'none'), 0.2],
  ['a worker', 'qmail', (maildir: string) => openByWorker(workers, maildir, 'qmail'), 0.149],
  ['processes of one session', 'none', openStandalone, 0.0006],
  ['processes of one session', 'qmail', openStandalone, 0.0004],
] as const)('%s answers like the model, compat = %s', { timeout: 7_200_000 }, async (name, compat, open, share) => {
  const wanted = SOAK.pop3Commands * share
  let commands = 0
  let shown = 0
  for (let seed = SOAK.seed; commands < wanted; seed += 1) {
    const details = await checkRuns(
      actions(80),
      async steps => {
        commands += await MaildropTrial.run(root.path, compat, open, steps)
      },
      { numRuns: name === 'processes of one session' ? 1 : RUNS, seed, interruptAfterTimeLimit: 120_000 },
    )
    if (commands >= shown + STEP_COMMANDS) {
      shown = commands
      console.log(`${name}, compat = ${compat}: ${commands} commands, seeds ${SOAK.seed} to ${seed}`)
    }
    expect(details.failed, `SOAK_SEED=${seed} ${fc.defaultReportMessage(details)}`).toBe(false)
  }
  console.log(`${name}, compat = ${compat}: ${commands} commands, SOAK_SEED=${SOAK.seed}`)
  expect(commands).toBeGreaterThanOrEqual(wanted)
})
