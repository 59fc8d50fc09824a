import { closeSync, openSync, readSync } from 'node:fs'
import { filePath } from './file-path.ts'
import { LF, type LineEncoder, lineEndAfter } from './line-endings.ts'
import { namedSizes } from './maildir-name.ts'
import type { Message } from './message.ts'
import { OPEN_MESSAGE } from './open-message.ts'
import type { TimeSlice } from './time-slice.ts'

/**
 * Octets of a message as sent, without byte-stuffing and without the extra empty line (RFC 1939 §11). `,W=` in the file
 * name is believed if `,S=` tells the truth about the file; otherwise the file is read. A file that cannot be read has the
 * size of the scan: nobody can be sent it anyway.
 */
export async function wireOctetsOf(
  maildir: string,
  message: Message,
  { encoder, buffer, keepCr, slice }: { encoder: LineEncoder; buffer: Buffer; keepCr: boolean; slice: TimeSlice },
): Promise<number> {
  const named = keepCr ? undefined : namedSizes(message.name)
  if (named?.wire !== undefined && named.file === message.fileOctets && named.wire >= named.file) return named.wire
  let fd: number
  try {
    fd = openSync(filePath(maildir, message.folder, message.name), OPEN_MESSAGE)
  } catch {
    return message.fileOctets
  }
  try {
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
  } catch {
    return message.fileOctets
  } finally {
    closeSync(fd)
  }
}
