/** The SSL dialogue with the server behind, before a client's octets are relayed. */
import type { Duplex } from 'node:stream'
import { type FirstLine, readFirstLine } from './first-line.ts'

export type DialogueOptions = {
  /** The whole command with CRLF (formatSslPreamble). It has a password and must not be logged. */
  readonly preamble: string
  /**
   * `ok`: the server replies to the command with one line, which is discarded. `none`: the server
   * does not reply.
   */
  readonly reply: 'ok' | 'none'
  /** Milliseconds for the greeting, and the same again for the reply. */
  readonly limit: number
}

/**
 * `greeted`: send `greeting` (with its line end) and then `rest` to the client. `refused`: the
 * greeting was not +OK; send its line to the client and close. `failed`: the client must get no
 * octet of the server; `reason` is for the log.
 */
export type DialogueEnd =
  | { readonly kind: 'greeted'; readonly greeting: Buffer; readonly rest: Buffer }
  | { readonly kind: 'refused'; readonly greeting: Buffer }
  | { readonly kind: 'failed'; readonly reason: string; readonly error?: Error | undefined }

/** Longest line of a server before the client's first command, in octets (RFC 2449 §4). */
const LINE_MAX_OCTETS = 512

/**
 * Performs the proxy's side of the SSL dialogue (spec/sslwrap.md §3): reads the greeting, sends the
 * client's address, discards the reply. Sends no octet of the client. Afterwards the stream is
 * paused and has no listener of this function. Never rejects. On `failed` the caller destroys the
 * stream.
 */
export async function holdDialogue(server: Duplex, { preamble, reply, limit }: DialogueOptions): Promise<DialogueEnd> {
  const greeting = await readLine(server, Buffer.alloc(0), limit, 'greeting')
  if (!('line' in greeting)) return greeting
  if (!greeting.line.toString('latin1').startsWith('+OK')) return { kind: 'refused', greeting: greeting.line }
  server.write(preamble)
  if (reply === 'none') return { kind: 'greeted', greeting: greeting.line, rest: greeting.rest }
  const answer = await readLine(server, greeting.rest, limit, 'reply')
  if (!('line' in answer)) return answer
  // The reply is not logged, because a server that echoes commands would put the password into the
  // log.
  if (!answer.line.toString('latin1').startsWith('+OK'))
    return failed('preamble refused: check the shared password file and the trusted peers')
  return { kind: 'greeted', greeting: greeting.line, rest: answer.rest }
}

/** Reads one line with its LF. `before` contains octets that were read earlier. */
async function readLine(server: Duplex, before: Buffer, limit: number, what: string): Promise<FirstLine | DialogueEnd> {
  const found = await readFirstLine(server, { milliseconds: limit, octets: LINE_MAX_OCTETS }, before)
  if ('line' in found) return found
  switch (found.reason) {
    case 'late':
      return failed(`no ${what} within ${limit} ms`)
    case 'long':
      return failed(`${what} longer than ${LINE_MAX_OCTETS} octets`)
    case 'ended':
      return failed(`server closed before its ${what}`)
    case 'failed':
      return failed(`server failed before its ${what}`, found.error)
  }
}

const failed = (reason: string, error?: Error): DialogueEnd => ({ kind: 'failed', reason, error })
