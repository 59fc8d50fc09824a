import { readSync } from 'node:fs'
import type { TimeSlice } from '../time-slice.ts'
import { LF, type LineEncoder, lineEndAfter } from './line-endings.ts'

/**
 * Octets of an open message file as sent, without byte-stuffing and without the extra empty line
 * (RFC 1939 §11). The file is
 * always read: `,S=` and `,W=` in its name are not believed, because a name outlives a change of the file.
 * @throws the system's error if the file cannot be read.
 */
export async function wireOctetsOf(
  fd: number,
  { encoder, buffer, keepCr, slice }: { encoder: LineEncoder; buffer: Buffer; keepCr: boolean; slice: TimeSlice },
): Promise<number> {
  let octets = 0
  let previous = LF
  for (;;) {
    const got = readSync(fd, buffer, 0, Math.min(buffer.length, encoder.maxInput), null)
    if (got === 0) return octets + lineEndAfter(previous, keepCr).length
    octets += encoder.count(buffer.subarray(0, got), previous, keepCr)
    previous = buffer[got - 1] ?? LF
    const pause = slice.pause()
    if (pause !== undefined) await pause
  }
}
