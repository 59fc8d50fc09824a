import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { sent, sizeOf } from '../../harness/pop3/maildrop-model.ts'
import { actions, MaildropTrial, type OpenSession } from '../../harness/pop3/maildrop-trial.ts'
import { openByWorker, openStandalone } from '../../harness/pop3/open-sessions.ts'
import { WorkersForTests } from '../../harness/pop3/pop3d.ts'
import { assertRuns } from '../../harness/runner/check-runs.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
const workers = new WorkersForTests(root.path)
afterAll(async () => {
  await workers.stop()
  root.remove()
})

/** `npm run test:soak -- maildrop-model` runs a million commands. */
const SEED = 25

const byWorker: OpenSession = (maildir, dialect) => openByWorker(workers, maildir, dialect)

describe.each(['none', 'qmail'] as const)('random sessions on a random maildrop, compat = %s', compat => {
  test.each([
    ['a worker', byWorker, { runs: 100, length: 60, least: 3000 }],
    ['processes of one session', openStandalone, { runs: 4, length: 60, least: 30 }],
  ] as const)(
    '%s: every answer agrees with the model',
    { timeout: 120_000 },
    async (_, open, { runs, length, least }) => {
      let commands = 0
      await assertRuns(
        actions(length),
        async steps => {
          commands += await MaildropTrial.run(root.path, compat, open, steps)
        },
        { numRuns: runs, seed: SEED, interruptAfterTimeLimit: 60_000 },
      )
      expect(commands).toBeGreaterThan(least)
    },
  )

  test('a server of the other dialect is found', async () => {
    const other = compat === 'none' ? 'qmail' : 'none'
    const { errorInstance } = await fc.check(
      fc.asyncProperty(actions(60), async steps => {
        await MaildropTrial.run(root.path, compat, maildir => byWorker(maildir, other), steps)
      }),
      { numRuns: 20, seed: SEED, endOnFailure: true },
    )
    // An answer differs; the server did not fail otherwise.
    expect(errorInstance).toMatchObject({
      name: 'AssertionError',
      message: expect.stringMatching(/^(?:STAT|LIST|UIDL|RETR|TOP)[^:]*: expected /),
    })
  })
})

test('the model sends the octets of RFC 1939, and with qmail those of qmail-pop3d', () => {
  expect(sent('a\n\n.b', 'none')).toBe('a\r\n\r\n..b\r\n.\r\n')
  expect(sent('a\n\n.b', 'qmail')).toBe('a\r\n\r\n..b\r\n\r\n.\r\n')
  expect(sent('a\n\nb\nc\n', 'none', 1)).toBe('a\r\n\r\nb\r\n.\r\n')
  expect(sent('', 'qmail')).toBe('\r\n.\r\n')
  expect([sizeOf('a\r\n.b', 'none'), sizeOf('a\r\n.b', 'qmail')]).toEqual([7, 5])
})
