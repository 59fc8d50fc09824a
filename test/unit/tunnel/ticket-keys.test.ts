import { expect, test } from 'vitest'
import { rotateTicketKeys, TicketKeyRing } from '../../../src/tunnel/ticket-keys.ts'

test('the newest key comes first, and old ones are forgotten', () => {
  const first = rotateTicketKeys()
  const later = rotateTicketKeys(rotateTicketKeys(first))
  expect(later).toHaveLength(3)
  expect(later[2]).toBe(first[0])
  expect(rotateTicketKeys(later)).not.toContain(first[0])
  expect(new Set(later).size).toBe(3)
})

test.each([[[]], [['']], [['00']], [['x'.repeat(96)]]])('bad keys are refused: %j', keys => {
  expect(() => new TicketKeyRing(keys)).toThrow(TypeError)
})
