import { expect, test } from 'vitest'
import { NamedParameters } from '../../../src/database/statement.ts'

test('parameters are numbered in their order, and values follow that order', () => {
  const parameters = new NamedParameters({ ip: 'inet[]', host: 'text', now: 'timestamptz' })
  expect(parameters.at('ip')).toBe('$1::inet[]')
  expect(parameters.at('now')).toBe('$3::timestamptz')
  expect(parameters.values({ now: null, host: 'mx', ip: ['192.0.2.7'] })).toEqual([['192.0.2.7'], 'mx', null])
})
