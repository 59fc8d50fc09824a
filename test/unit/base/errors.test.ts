import { statSync } from 'node:fs'
import { expect, test } from 'vitest'
import { asError, errorCodeOf, messageOf, stackOf } from '../../../src/base/errors.ts'

test('an error is unchanged, and any other thrown value becomes an error', () => {
  const error = new TypeError('x')
  expect(asError(error)).toBe(error)
  expect(asError('text')).toEqual(new Error('text'))
  expect(messageOf(error)).toBe('x')
  expect(messageOf(undefined)).toBe('undefined')
})

test('the message of an aggregate contains every message', () => {
  expect(messageOf(new AggregateError([new Error('::1: refused'), new Error('127.0.0.1: refused')]))).toBe(
    '::1: refused, 127.0.0.1: refused',
  )
  expect(messageOf(new AggregateError([], 'none'))).toBe('none')
})

test('a fault of the program is reported with its stack, or its message, or its text', () => {
  const error = new TypeError('x')
  expect(stackOf(error)).toMatch(/^TypeError: x\n +at /)
  delete error.stack
  expect(stackOf(error)).toBe('x')
  expect(stackOf('text')).toBe('text')
})

test('only a system error has a code', () => {
  try {
    statSync('/nonexistent')
  } catch (error) {
    expect(errorCodeOf(error)).toBe('ENOENT')
  }
  expect.assertions(3)
  expect(errorCodeOf({ code: 'ENOENT' })).toBeUndefined()
  expect(errorCodeOf(Object.assign(new Error('x'), { code: 5 }))).toBeUndefined()
})
