import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { watchDescriptors } from '../../../src/process/connection-limits.ts'

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

test('one line when no descriptor is free, one when there is one again', () => {
  const lines: string[] = []
  let has = true
  const watch = watchDescriptors(createLog('popup', { write: line => lines.push(line) }), () => has)
  vi.advanceTimersByTime(3000)
  expect(lines).toEqual([])
  has = false
  vi.advanceTimersByTime(3000)
  expect(lines).toEqual([expect.stringMatching(/^popup: level=error event=descriptors_exhausted .*LimitNOFILE/)])
  has = true
  vi.advanceTimersByTime(3000)
  expect(lines.slice(1)).toEqual(['popup: level=info event=descriptors_freed\n'])
  watch.stop()
})
