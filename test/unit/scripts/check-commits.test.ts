import { execFileSync, spawnSync } from 'node:child_process'
import { expect, onTestFinished, test } from 'vitest'
import { subjectFault } from '../../../scripts/checks/commits.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

test.each([
  'popup: bound replies before login',
  'docs: rewrite OPERATING by symptom',
  'docs, auth-relay: add block and unblock',
  'wrap: the cdb holds the grants of now',
  'auth-relay: sort imports',
])('%s is good', subject => {
  expect(subjectFault(subject)).toBeUndefined()
})

test.each([
  ['One resume is enough', /component: effect/],
  ['bench: a word', /three words/],
  [
    'Two tests that told the truth most of the time: a kill that nothing noticed, an age of minus zero',
    /component: effect/,
  ],
  ['bench:', /component: effect/],
  ['Popup: bound replies', /component: effect/],
  ['popup: bound replies.', /component: effect/],
  ['popup:bound replies', /component: effect/],
  [`popup: ${'x'.repeat(100)}`, /107 characters, 100 at most/],
])('%s is refused', (subject, fault) => {
  expect(subjectFault(subject)).toMatch(fault)
})

test('a checkout without the history is a failure in CI, and a notice elsewhere', () => {
  const { path: cwd, remove } = temporaryDirectory()
  onTestFinished(remove)
  const script = new URL('../../../scripts/checks/commits.ts', import.meta.url).pathname
  const check = (CI: string) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script], {
      cwd,
      env: { PATH: process.env['PATH'], CI, GIT_CEILING_DIRECTORIES: cwd },
      encoding: 'utf8',
    })
    return { status, text: stdout + stderr }
  }
  const notice = { status: 0, text: expect.stringMatching(/commits: no subject was read/) }
  expect(check('true'), 'an unpacked archive').toEqual(notice)
  execFileSync('git', ['init', '-q'], { cwd })
  expect(check('')).toEqual(notice)
  expect(check('true')).toEqual({ status: 1, text: expect.stringMatching(/FAULT: .*git fetch --unshallow/) })
})
