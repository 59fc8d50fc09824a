import { expect, test } from 'vitest'
import { senderBelongsTo } from '../../../../src/grants/devices/mail-rules.ts'

test.each<[string, string, readonly string[], boolean]>([
  ['ann@example.org', 'ann@example.org', [], true],
  ['Ann@Example.org', 'ann@example.ORG', [], true],
  ['ann%example.org', 'ann@example.org', [], true],
  ['ann/example.org', 'ann@example.org', [], true],
  ['ann@example.org', 'ann+list@example.org', [], true],
  ['ann@example.org', 'ann-list@example.org', [], true],
  ['ann@example.org', '', [], true],
  ['ann@example.org', 'annabel@example.org', [], false],
  ['ann@example.org', 'boss@example.org', [], false],
  ['ann@example.org', 'ann@example.net', [], false],
  ['ann@example.org', 'ann', [], false],
  ['ann', 'ann@anything.example', [], true],
  ['ann', 'ann@example.org', ['Example.org'], true],
  ['ann', 'ann@example.net', ['example.org'], false],
  ['ann', 'bob@example.org', ['example.org'], false],
  ['', 'bob@example.org', [], false],
])('login %j, sender %j, domains %j: %s', (login, sender, domains, expected) => {
  expect(senderBelongsTo(login, sender, domains)).toBe(expected)
})
