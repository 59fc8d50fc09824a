import { read, readSync } from 'node:fs'
import { CRLF, ok, TERMINATION } from '../../pop3/reply.ts'
import type { Connection } from '../../sockets/connection.ts'
import type { TimeSlice } from '../time-slice.ts'
import { CR, type EncoderLane, LF, type LineEncoder, lineEndAfter, MAX_EXPANSION } from './line-encoder.ts'

/** A message file as the octets of a reply: RETR and TOP send them, LIST and STAT count them. */

/** Octets of a file that are read, encoded and written at a time. */
export const CHUNK = 262_144

/** A file up to this length is read at once; a longer one is streamed, so that a slow client costs two buffers. */
export const SMALL_MESSAGE = 65_536

export interface TransferRules {
  /** qmail's CR before CRLF. */
  readonly keepCr: boolean
  /** One more empty line before the termination, as qmail-pop3d.8 documents. */
  readonly extraBlank: boolean
}

/** Buffers of one length, kept for the next transfer; idle sessions hold none. */
class BufferPool {
  readonly #length: number
  readonly #kept: Buffer[] = []
  readonly #maxKept: number

  constructor(length: number, maxKept: number) {
    this.#length = length
    this.#maxKept = maxKept
  }

  take(): Buffer {
    return this.#kept.pop() ?? Buffer.allocUnsafeSlow(this.#length)
  }

  give(buffer: Buffer): void {
    if (this.#kept.length < this.#maxKept) this.#kept.push(buffer)
  }
}

const inputs = new BufferPool(CHUNK, 16)
const outputs = new BufferPool(CHUNK * MAX_EXPANSION, 32)
const scratch = Buffer.allocUnsafeSlow(CHUNK)
/** Octets of the longest end of a reply. */
const LONGEST_END = 16
const small = Buffer.allocUnsafeSlow(CHUNK * MAX_EXPANSION)

/** A message file on its way: what remembers, between two chunks, where in a line and in the message we are. */
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

  /** TOP has all it asked for: the rest of the file is not needed. */
  get cutShort(): boolean {
    return this.#cutShort
  }

  /** The octets to send for this chunk; valid until the next call on any transfer. */
  encode(chunk: Uint8Array): Uint8Array {
    return this.#encode(chunk, (length, previous, keepCr) =>
      this.#encoder.encode(length < chunk.length ? chunk.subarray(0, length) : chunk, previous, keepCr),
    )
  }

  /** The same for the first `got` octets of a lane's input; valid until the same output is asked for again. */
  encodeIn(lane: EncoderLane, got: number, output: 0 | 1): Uint8Array {
    const chunk = lane.input.subarray(0, got)
    return this.#encode(chunk, (length, previous, keepCr) => lane.encode(length, previous, keepCr, output))
  }

  #encode(chunk: Uint8Array, run: (length: number, previous: number, keepCr: boolean) => Uint8Array): Uint8Array {
    const wanted = this.#limit === undefined ? chunk.length : this.#limit.take(chunk)
    this.#cutShort = wanted < chunk.length
    const last = chunk[wanted - 1]
    const encoded = run(wanted, this.#previous, this.#rules.keepCr)
    this.#previous = last ?? this.#previous
    return encoded
  }

  /** What follows the last chunk: the end of an unfinished line, the extra line, the termination (RFC 1939 §3). */
  end(): string {
    return lineEndAfter(this.#previous, this.#rules.keepCr) + (this.#rules.extraBlank ? CRLF : '') + TERMINATION
  }
}

/**
 * The whole reply to RETR or TOP for a small file; valid until the next call. @throws the system's
 * error if the file cannot be read.
 */
export function readMessage(
  fd: number,
  encoder: LineEncoder,
  rules: TransferRules,
  bodyLines: number | undefined,
): Uint8Array {
  const transfer = new Transfer(encoder, rules, bodyLines)
  const head = ok()
  let reply = small
  reply.write(head, 0, 'latin1')
  let size = head.length
  for (;;) {
    const got = readSync(fd, scratch, 0, scratch.length, null)
    if (got > 0) {
      const encoded = transfer.encode(scratch.subarray(0, got))
      // Only a file that has grown since it was opened does not fit.
      if (size + encoded.length + LONGEST_END > reply.length)
        reply = Buffer.concat([reply, Buffer.alloc(CHUNK * MAX_EXPANSION)])
      reply.set(encoded, size)
      size += encoded.length
    }
    // A regular file gives less than asked for only at its end.
    if (got < scratch.length || transfer.cutShort) break
  }
  size += reply.write(transfer.end(), size, 'latin1')
  return reply.subarray(0, size)
}

/**
 * Streams the reply to RETR or TOP: while one chunk is written the next is read, and no more than that is held, however
 * long the message and however slow the client. The result is how many octets the reply has;
 * undefined if the client is gone.
 * `size` is that of the file when it was opened.
 * @throws the system's error if the file cannot be read, or has become shorter: the reply is then
 * unfinished, and the connection must be dropped.
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
  const lane = encoder.takeLane() ?? new CopyingLane(encoder)
  let next: 0 | 1 = 0
  const head = ok()
  let octets = head.length
  let taken = 0
  let written: Promise<boolean> = Promise.resolve(true)
  try {
    connection.write(head)
    for (;;) {
      const got = await readChunk(fd, lane.input)
      if (got === 0) break
      taken += got
      const encoded = transfer.encodeIn(lane, got, next)
      next = next === 0 ? 1 : 0
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
    // Only what no write still reads from may serve another transfer.
    await written
    if (lane instanceof CopyingLane) lane.release()
    else encoder.giveLane(lane)
  }
}

/** Where the encoder has no lane to give: its result is copied out of the memory that all share. */
class CopyingLane implements EncoderLane {
  readonly input = inputs.take()
  readonly #outputs = [outputs.take(), outputs.take()] as const
  readonly #encoder: LineEncoder

  constructor(encoder: LineEncoder) {
    this.#encoder = encoder
  }

  encode(length: number, previous: number, keepCr: boolean, output: 0 | 1): Uint8Array {
    const encoded = this.#encoder.encode(this.input.subarray(0, length), previous, keepCr)
    const own = this.#outputs[output]
    own.set(encoded)
    return own.subarray(0, encoded.length)
  }

  release(): void {
    inputs.give(this.input)
    for (const output of this.#outputs) outputs.give(output)
  }
}

const readChunk = (fd: number, buffer: Buffer): Promise<number> =>
  new Promise((resolve, reject) => {
    read(fd, buffer, 0, buffer.length, null, (error, got) => (error === null ? resolve(got) : reject(error)))
  })

/** How much of a file TOP sends: the header, the empty line after it, and `bodyLines` lines of the body. */
export class TopLimit {
  #inHeader = true
  #bodyLines: number
  /** The line begun in an earlier chunk is empty so far, or holds nothing but one CR. */
  #line: 'empty' | 'cr' | 'text' = 'empty'
  readonly #crIsEmpty: boolean

  /** `crIsEmpty`: a line of one CR ends the header too; qmail sends the whole of a message with CRLF line ends. */
  constructor(bodyLines: number, crIsEmpty: boolean) {
    this.#bodyLines = bodyLines
    this.#crIsEmpty = crIsEmpty
  }

  /** Octets of this chunk that are sent; less than its length means that nothing after it is. */
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
