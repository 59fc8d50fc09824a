import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { deadlineOf, raced } from '../../../src/database/deadline.ts'

describe('a deadline', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('passes at the time limit', () => {
    const { signal } = deadlineOf(undefined, 1000)
    vi.advanceTimersByTime(999)
    expect(signal.aborted).toBe(false)
    vi.advanceTimersByTime(1)
    expect(signal.reason).toMatchObject({ message: 'no answer within 1000 ms' })
  })

  test("passes at the caller's signal, if that is earlier", () => {
    const caller = new AbortController()
    const { signal } = deadlineOf(caller.signal, 1000)
    caller.abort('enough')
    vi.advanceTimersByTime(2000)
    expect(signal.reason).toBe('enough')
    expect(deadlineOf(caller.signal, 1000).signal.reason).toBe('enough')
  })

  test('leaves nothing behind when it is cleared', () => {
    const caller = new AbortController()
    const { signal, clear } = deadlineOf(caller.signal, 1000)
    clear()
    expect(vi.getTimerCount()).toBe(0)
    caller.abort()
    expect(signal.aborted).toBe(false)
  })
})

describe('a promise in a race with a signal', () => {
  test('that is first', async () => {
    const late: string[] = []
    const controller = new AbortController()
    await expect(raced(controller.signal, Promise.resolve('yes'), text => late.push(text))).resolves.toBe('yes')
    await expect(raced(controller.signal, Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(late).toEqual([])
  })

  test('that is late: its value is discarded, its error is silent', async () => {
    const late: string[] = []
    const controller = new AbortController()
    const [value, failure] = [Promise.withResolvers<string>(), Promise.withResolvers<string>()]
    const discard = (text: string): unknown => late.push(text)
    const results = [
      raced(controller.signal, value.promise, discard),
      raced(controller.signal, failure.promise, discard),
    ]
    controller.abort(new Error('late'))
    for (const result of results) await expect(result).rejects.toThrow('late')
    value.resolve('a connection')
    failure.reject(new Error('the race is already decided'))
    await Promise.allSettled([value.promise, failure.promise])
    expect(late).toEqual(['a connection'])
  })
})
