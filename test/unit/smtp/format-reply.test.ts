import { expect, test } from 'vitest'
import { formatReply } from '../../../src/smtp/reply.ts'

test.each([
  ['printable ASCII stays', '250 ok: 50% of <u@example.org>', '250 ok: 50% of <u@example.org>'],
  [
    'each octet of UTF-8 is encoded',
    '550 set its sender to bü漢@example.org',
    '550 set its sender to b%C3%BC%E6%BC%A2@example.org',
  ],
  ['control characters end no line', '550 a\r\n250 b\0', '550 a%0D%0A250 b%00'],
])('%s', (_name, reply, line) => expect(formatReply(reply).toString('latin1')).toBe(`${line}\r\n`))

test.each([0, 1, 2, 3])('a line has at most 400 octets and ends with whole encoded octets: %i', shift => {
  const line = formatReply(`550 ${'x'.repeat(shift)}${'漢'.repeat(200)}`).toString('latin1')
  expect(line).toMatch(/^550 x*(%[0-9A-F]{2})+\r\n$/)
  expect(line.length).toBeLessThanOrEqual(400)
  expect(line.length).toBeGreaterThan(396)
})
