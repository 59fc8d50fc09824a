import { read, readSync } from 'node:fs'
import { CRLF, ok, TERMINATION } from '../../pop3/reply.ts'
import type { Connection } from '../../sockets/connection.ts'
import { BufferPool } from './buffer-pool.ts'
import { type EncoderLane, LF, type LineEncoder, lineEndAfter, MAX_EXPANSION } from './line-endings.ts'
import { TopLimit } from './top-limit.ts'

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
