import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LineWriter } from '../../../src/base/log.ts'

let taken: string
/** Octets that the pipe accepts before it is full. */
let room: number
let failure: string

beforeEach(() => {
  vi.useFakeTimers()
  taken = ''
  room = Number.POSITIVE_INFINITY
  failure = 'EAGAIN'
})
afterEach(() => {
  vi.useRealTimers()
})

const writer = () =>
  new LineWriter(octets => {
    const count = Math.min(room, octets.length)
    if (count === 0) throw Object.assign(new Error('write'), { code: failure })
    taken += octets.toString('utf8', 0, count)
    room -= count
    return count
  })

describe('LineWriter', () => {
  it('writes each line at once', () => {
    const log = writer()
    log.line('a\n', 'popup')
    expect(taken).toBe('a\n')
  })

  it('writes the lines of one turn together, in order with lines that are written at once', () => {
    let writes = 0
    const log = new LineWriter(octets => {
      writes += 1
      taken += octets.toString()
      return octets.length
    })
    log.lineOfTurn('a\n', 'popup')
    log.lineOfTurn('b\n', 'popup')
    expect(taken).toBe('')
    vi.advanceTimersByTime(0)
    expect([writes, taken]).toEqual([1, 'a\nb\n'])
    log.lineOfTurn('c\n', 'popup')
    log.line('d\n', 'popup')
    vi.advanceTimersByTime(0)
    expect([writes, taken]).toEqual([2, 'a\nb\nc\nd\n'])
  })

  it('keeps the octets that a full pipe does not accept, in order, also a part of a line', () => {
    const log = writer()
    room = 3
    log.line('abc ü\n', 'popup')
    log.line('second\n', 'popup')
    expect(taken).toBe('abc')
    room = Number.POSITIVE_INFINITY
    log.line('third\n', 'popup')
    vi.advanceTimersByTime(20)
    expect(taken).toBe('abc ü\nsecond\nthird\n')
    log.line('fourth\n', 'popup')
    expect(taken.endsWith('fourth\n')).toBe(true)
  })

  it('keeps 1 MiB, drops further lines, and reports the number of dropped lines', () => {
    const log = writer()
    room = 0
    const line = `${'x'.repeat(1023)}\n`
    for (let n = 0; n < 1100; n++) log.line(line, 'popup')
    room = Number.POSITIVE_INFINITY
    log.flush()
    log.line('later\n', 'popup')
    expect(taken).toBe(
      `${line.repeat(1024)}popup: level=warn event=log_lines_lost count=76 reason="the reader of the log is too slow"\nlater\n`,
    )
  })

  it('drops everything when the reader has closed the pipe', () => {
    const log = writer()
    room = 0
    failure = 'EPIPE'
    log.line('a\n', 'popup')
    room = Number.POSITIVE_INFINITY
    vi.advanceTimersByTime(100)
    expect(taken).toBe('')
    log.line('b\n', 'popup')
    expect(taken).toBe('b\n')
  })
})

it('writes whole lines together, at most as many octets as a pipe accepts at once', () => {
  const writes: string[] = []
  const writer = new LineWriter(octets => {
    if (isFull) throw Object.assign(new Error('full'), { code: 'EAGAIN' })
    writes.push(octets.toString())
    return octets.length
  })
  let isFull = true
  const lines = Array.from({ length: 100 }, (_, n) => `${n} ${'x'.repeat(90)}\n`)
  for (const line of lines) writer.line(line, 'popup')
  expect(writes).toEqual([])
  isFull = false
  writer.flush()
  expect(writes.join('')).toBe(lines.join(''))
  expect(writes.every(text => text.length <= 4096 && text.endsWith('\n'))).toBe(true)
  expect(writes.length).toBeLessThan(5)
})
