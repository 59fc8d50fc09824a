import { expect, test } from 'vitest'
import { subjectFault } from '../../../scripts/check-commits.ts'

test.each([
  'popup: bound replies before login',
  'docs: rewrite OPERATING by symptom',
  'docs, auth-relay: add block and unblock',
  'wrap: the cdb holds the grants of now',
])('%s is good', subject => {
  expect(subjectFault(subject)).toBeUndefined()
})

test.each([
  ['One resume is enough', /component: effect/],
  ['bench:', /component: effect/],
  ['Popup: bound replies', /component: effect/],
  ['popup: bound replies.', /component: effect/],
  ['popup:bound replies', /component: effect/],
  [`popup: ${'x'.repeat(100)}`, /107 characters, 100 at most/],
])('%s is refused', (subject, fault) => {
  expect(subjectFault(subject)).toMatch(fault)
})
