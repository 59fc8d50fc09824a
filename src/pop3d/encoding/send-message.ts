/** A message file as the octets of a reply, sent by RETR and TOP, counted by LIST and STAT. */
import { read, readSync } from 'node:fs'
import { CRLF, ok, TERMINATION } from '../../pop3/reply.ts'
import type { Connection } from '../../sockets/connection.ts'
import type { TimeSlice } from '../time-slice.ts'
import { CR, LF, type LineEncoder, lineEndAfter } from './line-encoder.ts'

/** Octets of a file that are read, encoded and written at a time. */
export const CHUNK = 262_144

/**
 * Longest file in octets that is read at once. A longer file is streamed, so that a slow client
 * costs two buffers.
 */
export const SMALL_MESSAGE = 65_536

export interface TransferRules {
  /** Send a CR before CRLF too, as qmail does. */
  readonly keepCr: boolean
  /** Send one more empty line before the termination, as qmail-pop3d.8 documents. */
  readonly extraBlank: boolean
}

/** A message file in transfer: the position in the line and in the message between two pieces. */
class Transfer {
  readonly #rules: TransferRules
  readonly #encoder: LineEncoder
  readonly #limit: TopLimit | undefined
  #previous = LF
  #cutShort = false

  constructor(encoder: LineEncoder, rules: TransferRules, bodyLines: number | undefined) {
    this.#encoder = encoder
    this.#rules = rules
    this.#limit = bodyLines === undefined ? undefined : new TopLimit(bodyLines, !rules.keepCr)
  }

  /** True if TOP has sent all requested lines, so that the rest of the file is not needed. */
  get cutShort(): boolean {
    return this.#cutShort
  }

  /**
   * Encodes the first `got` octets of the encoder's input. Returns the number of octets to send.
   */
  encode(got: number, output: 0 | 1, at: number): number {
    const { input } = this.#encoder
    const sent = this.#limit === undefined ? got : this.#limit.take(input.subarray(0, got))
    this.#cutShort = sent < got
    const last = input[sent - 1]
    const octets = this.#encoder.encode(sent, this.#previous, this.#rules.keepCr, output, at)
    if (sent > 0) this.#previous = last ?? this.#previous
    return octets
  }

  /**
   * Returns the octets behind the last piece: the end of an unfinished line, the extra line, the
   * termination (RFC 1939 §3).
   */
  end(): string {
    return lineEndAfter(this.#previous, this.#rules.keepCr) + (this.#rules.extraBlank ? CRLF : '') + TERMINATION
  }
}

/**
 * Returns the complete reply to RETR or TOP for a small file. The reply lies in the memory of the
 * encoder and is valid until the encoder is used again.
 * @throws the system's error if the file cannot be read.
 */
export function readMessage(
  fd: number,
  encoder: LineEncoder,
  rules: TransferRules,
  bodyLines: number | undefined,
): Uint8Array {
  const transfer = new Transfer(encoder, rules, bodyLines)
  const [reply] = encoder.outputs
  let earlier: Buffer | undefined
  let size = reply.write(ok(), 0, 'latin1')
  for (;;) {
    const got = readSync(fd, encoder.input, 0, encoder.input.length, null)
    if (got > 0) size += transfer.encode(got, 0, size)
    // A read of a regular file returns fewer octets than requested only at its end.
    if (got < encoder.input.length || transfer.cutShort) break
    // Only a file that has grown since it was opened reaches this line.
    earlier = Buffer.concat([earlier ?? Buffer.alloc(0), reply.subarray(0, size)])
    size = 0
  }
  size += reply.write(transfer.end(), size, 'latin1')
  const last = reply.subarray(0, size)
  return earlier === undefined ? last : Buffer.concat([earlier, last])
}

/**
 * Streams the reply to RETR or TOP. While one piece is written, the next one is read, so the
 * transfer holds two pieces for every length of the message and every speed of the client. Returns
 * the number of octets of the reply, or undefined if the client has closed the connection. `size`
 * is the size of the file when it was opened.
 * @throws the system's error if the file cannot be read or has become shorter. The reply is then
 * incomplete, and the caller must close the connection.
 */
export async function streamMessage(
  fd: number,
  size: number,
  connection: Connection,
  encoder: LineEncoder,
  rules: TransferRules,
  bodyLines: number | undefined,
): Promise<number | undefined> {
  const transfer = new Transfer(encoder, rules, bodyLines)
  let output: 0 | 1 = 0
  const head = ok()
  let octets = head.length
  let taken = 0
  let written: Promise<boolean> = Promise.resolve(true)
  try {
    connection.write(head)
    for (;;) {
      const got = await readChunk(fd, encoder.input)
      if (got === 0) break
      taken += got
      const encoded = encoder.outputs[output].subarray(0, transfer.encode(got, output, 0))
      output = output === 0 ? 1 : 0
      if (!(await written)) return undefined
      written = connection.writeChunk(encoded)
      octets += encoded.length
      if (transfer.cutShort) break
    }
    if (!(await written)) return undefined
    if (taken < size && !transfer.cutShort) throw new Error('the file became shorter while it was sent')
    const end = transfer.end()
    connection.write(end)
    return octets + end.length
  } finally {
    // The write still reads from the encoder's memory, so the memory is released after the write.
    await written
  }
}

const readChunk = (fd: number, buffer: Buffer): Promise<number> =>
  new Promise((resolve, reject) => {
    read(fd, buffer, 0, buffer.length, null, (error, got) => (error === null ? resolve(got) : reject(error)))
  })

/**
 * Limits a file to the lines that TOP sends: the header, the empty line after it, and `bodyLines`
 * lines of the body.
 */
export class TopLimit {
  #inHeader = true
  #bodyLines: number
  /** Content so far of a line that began in an earlier chunk: empty, one CR, or text. */
  #line: 'empty' | 'cr' | 'text' = 'empty'
  readonly #crIsEmpty: boolean

  /**
   * `crIsEmpty`: a line of one CR also ends the header. qmail does not set it, so it sends the
   * whole of a message with CRLF line ends.
   */
  constructor(bodyLines: number, crIsEmpty: boolean) {
    this.#bodyLines = bodyLines
    this.#crIsEmpty = crIsEmpty
  }

  /**
   * Returns the number of octets of this chunk to send. A number below its length means that
   * nothing behind it is sent.
   */
  take(chunk: Uint8Array): number {
    let start = 0
    while (start < chunk.length) {
      if (!this.#inHeader && this.#line === 'empty') {
        if (this.#bodyLines === 0) return start
        this.#bodyLines -= 1
        this.#line = 'text'
      }
      const end = chunk.indexOf(LF, start)
      if (this.#inHeader) this.#line = this.#lineAfter(chunk, start, end < 0 ? chunk.length : end)
      if (end < 0) return chunk.length
      if (this.#line === 'empty' || (this.#line === 'cr' && this.#crIsEmpty)) this.#inHeader = false
      this.#line = 'empty'
      start = end + 1
    }
    return chunk.length
  }

  #lineAfter(chunk: Uint8Array, start: number, end: number): 'empty' | 'cr' | 'text' {
    if (start === end) return this.#line
    return this.#line === 'empty' && end - start === 1 && chunk[start] === CR ? 'cr' : 'text'
  }
}

/**
 * Counts the octets of an open message file as sent, without byte-stuffing and without the extra
 * empty line (RFC 1939 §11). The file is always read. `,S=` and `,W=` in its name are ignored,
 * because a name outlives a change of the file.
 * @throws the system's error if the file cannot be read.
 */
export async function wireOctetsOf(
  fd: number,
  { encoder, keepCr, slice }: { encoder: LineEncoder; keepCr: boolean; slice: TimeSlice },
): Promise<number> {
  let octets = 0
  let previous = LF
  for (;;) {
    const got = readSync(fd, encoder.input, 0, encoder.input.length, null)
    if (got === 0) return octets + lineEndAfter(previous, keepCr).length
    const last = encoder.input[got - 1] ?? LF
    octets += encoder.count(got, previous, keepCr)
    previous = last
    const pause = slice.pause()
    if (pause !== undefined) await pause
  }
}
