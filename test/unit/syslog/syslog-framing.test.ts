import { fc, test } from '@fast-check/vitest'
import { describe, expect, it } from 'vitest'
import { SyslogFraming } from '../../../src/syslog/syslog-framing.ts'
import { MAX_SYSLOG_LINE } from '../../../src/syslog/syslog-line.ts'

function frames(chunks: readonly Buffer[]): { lines: string[]; overlong: number; isInvalid: boolean } {
  const framing = new SyslogFraming()
  const all = { lines: [] as string[], overlong: 0, isInvalid: false }
  for (const chunk of chunks) {
    const { lines, overlong, isInvalid } = framing.push(chunk)
    all.lines.push(...lines)
    all.overlong += overlong
    all.isInvalid ||= isInvalid
    chunk.fill(0x31)
  }
  return all
}
const of = (...texts: string[]): Buffer[] => texts.map(text => Buffer.from(text))
const octetByOctet = (octets: Buffer): Buffer[] => [...octets].map(octet => Buffer.from([octet]))

describe('SyslogFraming (RFC 6587)', () => {
  it('reads lines ended by LF, with and without priority', () => {
    expect(frames(of('<22>a\n<22>b\nc'))).toEqual({ lines: ['<22>a', '<22>b'], overlong: 0, isInvalid: false })
    expect(frames(of('Mar  5 x\n')).lines).toEqual(['Mar  5 x'])
    expect(frames(octetByOctet(Buffer.from('2026-03-05T10:11:12Z x\n'))).lines).toEqual(['2026-03-05T10:11:12Z x'])
  })

  it('reads messages with an octet count; an LF inside is part of the message', () => {
    expect(frames(of('5 <22>a7 <22>\nbc'))).toEqual({ lines: ['<22>a', '<22>\nbc'], overlong: 0, isInvalid: false })
    expect(frames(of('6 <22>a\n5 <22>b')).lines).toEqual(['<22>a', '<22>b'])
  })

  it('drops messages that are too long completely', () => {
    const long = 'x'.repeat(9000)
    expect(frames(of(`9000 ${long}5 <22>a`))).toEqual({ lines: ['<22>a'], overlong: 1, isInvalid: false })
    expect(frames(octetByOctet(Buffer.from(`9000 ${long}5 <22>a`)))).toEqual({
      lines: ['<22>a'],
      overlong: 1,
      isInvalid: false,
    })
    expect(frames(of(`<22>${long}\n<22>a\n`))).toEqual({ lines: ['<22>a'], overlong: 1, isInvalid: false })
  })

  it('ends the stream if a count is missing', () => {
    expect(frames(of('5 <22>aoops 5 <22>b'))).toEqual({ lines: ['<22>a'], overlong: 0, isInvalid: true })
    expect(frames(of('5 <22>a0 5 <22>b')).isInvalid).toBe(true)
    expect(frames(of('5 <22>a123456789 ')).isInvalid).toBe(true)
  })

  it('reads a message of the maximum length, and drops one with an octet more', () => {
    const longest = 'x'.repeat(MAX_SYSLOG_LINE)
    expect(frames(of(`${MAX_SYSLOG_LINE} ${longest}${MAX_SYSLOG_LINE + 1} ${longest}x1 y`))).toEqual({
      lines: [longest, 'y'],
      overlong: 1,
      isInvalid: false,
    })
    expect(frames(of(`1234567 ${'x'.repeat(1000)}`))).toEqual({ lines: [], overlong: 1, isInvalid: false })
  })

  it('drops one LF at the end of a counted message', () => {
    expect(frames(of('1 \n2 a\n3 b\n\n')).lines).toEqual(['', 'a', 'b\n'])
  })

  it('reads nothing after the end of a stream', () => {
    const framing = new SyslogFraming()
    expect(framing.push(Buffer.from('1 ax'))).toEqual({ lines: ['a'], overlong: 0, isInvalid: true })
    expect(framing.push(Buffer.from('1 a'))).toEqual({ lines: [], overlong: 0, isInvalid: true })
  })

  it.each([
    ['1', [], false],
    ['1234567', [], false],
    ['12345678\n', ['12345678'], false],
    ['0 a\n', ['0 a'], false],
    ['01 a\n', ['01 a'], false],
    ['1a\n', ['1a'], false],
    ['1 a1', ['a'], false],
    ['1 a1234567', ['a'], false],
    ['1 a12345678', ['a'], true],
    ['1 a0', ['a'], true],
    ['1 a 1 b', ['a'], true],
    ['1 a1b', ['a'], true],
    ['1 a1b c', ['a'], true],
  ])('%j', (octets, lines, isInvalid) => {
    expect(frames(of(octets))).toEqual({ lines, overlong: 0, isInvalid })
    expect(frames(octetByOctet(Buffer.from(octets)))).toEqual({ lines, overlong: 0, isInvalid })
  })

  const message = fc
    .string({ unit: 'binary', minLength: 1 })
    .filter(text => !text.endsWith('\n') && text.isWellFormed())
  test.prop([fc.array(message), fc.array(fc.nat({ max: 40 }))])(
    'a stream with octet counts does not depend on the pieces',
    (messages, cuts) => {
      const stream = Buffer.concat(
        messages.map(text => Buffer.concat([Buffer.from(`${Buffer.byteLength(text)} `), Buffer.from(text)])),
      )
      const pieces: Buffer[] = []
      let start = 0
      for (const cut of cuts) {
        pieces.push(Buffer.from(stream.subarray(start, start + cut)))
        start += cut
      }
      pieces.push(Buffer.from(stream.subarray(start)))
      expect(frames(octetByOctet(stream)).lines).toEqual(messages)
      expect(frames(pieces).lines).toEqual(messages)
    },
  )

  test.prop([fc.uint8Array({ maxLength: 300 })])('no octets make it throw', octets => {
    expect(Array.isArray(frames(octetByOctet(Buffer.from(octets))).lines)).toBe(true)
  })
})
